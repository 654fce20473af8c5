"""A request that is under way while the configuration changes finds the workers of now."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from typing import Any

from google.protobuf import json_format

from prfaas_core import routing
from prfaas_protocol import configuration_pb2 as pb
from prfaas_router.configuration import Configuration, check
from prfaas_router.fleet import Fleet
from prfaas_router.preparation import ModelLimits, Prepared, prepare

Snapshot = Callable[..., dict[str, object]]


def configuration(snapshot: Snapshot, version: int, names: list[str], *, local: bool = True) -> Configuration:
    """A route whose decode and local prefill pool have workers of these names."""
    message = snapshot([], [] if local else None, None) | {"version": version}
    for pool in (message["decode"], message.get("local_prefill")):
        if isinstance(pool, dict):
            pool["endpoints"] = [
                {"name": name, "address": f"127.0.0.{number}", "http_port": 8000, "kv_port": 5600, "engine_id": name}
                for number, name in enumerate(names, start=version)
            ]
    return check(json_format.ParseDict(message, pb.Snapshot()), "ns/chat")


def prepared() -> Prepared:
    limits = ModelLimits("prfaas-1t", 131072, 4.0, 64)
    body: dict[str, Any] = {"model": "prfaas-1t", "prompt": array("I", range(500)).tolist()}
    return prepare(body, chat=False, model=limits)


def test_a_worker_that_came_later_can_be_chosen_and_found(snapshot: Snapshot) -> None:
    fleet = Fleet(lambda: 0.0)
    before, after = configuration(snapshot, 1, ["a", "b"]), configuration(snapshot, 2, ["b", "c"])
    fleet.configure(before)
    decision = fleet.decide(prepared(), before)
    fleet.configure(after)
    assert fleet.endpoint(before.decode, decision.decode_worker) == before.decode.endpoints[decision.decode_worker]
    chosen = routing.choose_worker(fleet.decode_view(before, ()), exclude=frozenset({"a", "b"}))
    assert chosen is not None
    assert chosen.name == "c"
    assert fleet.endpoint(before.decode, "c") == after.decode.endpoints["c"]


def test_a_worker_that_kept_its_name_is_where_it_is_now(snapshot: Snapshot) -> None:
    fleet = Fleet(lambda: 0.0)
    before, after = configuration(snapshot, 1, ["a"]), configuration(snapshot, 9, ["a"])
    fleet.configure(after)
    assert fleet.endpoint(before.decode, "a").address == ("127.0.0.9", 8000)


def test_a_pool_that_left_has_no_workers(snapshot: Snapshot) -> None:
    fleet = Fleet(lambda: 0.0)
    before = configuration(snapshot, 1, ["a"])
    fleet.configure(before)
    fleet.configure(configuration(snapshot, 2, ["a"], local=False))
    assert before.local_prefill is not None
    assert fleet.view(before.local_prefill, ()).workers == ()
    # A request of before loses its prefill pool and is still served.
    assert fleet.decide(prepared(), before).decode_worker == "a"


def test_a_sidecar_uses_its_own_worker_and_the_others_only_without_it(snapshot: Snapshot) -> None:
    now_s = 0.0
    fleet = Fleet(lambda: now_s, decode_pod="a")
    before = configuration(snapshot, 1, ["a", "b"])
    fleet.configure(before)
    assert {fleet.decide(prepared(), before).decode_worker for _ in range(5)} == {"a"}
    assert [worker.name for worker in fleet.decode_view(before, (), frozenset({"a"})).workers] == ["a", "b"]
    for _ in range(2):
        fleet.failed("decode", "a")
    assert fleet.decide(prepared(), before).decode_worker == "b"
    now_s = 3.0
    assert fleet.decide(prepared(), before).decode_worker == "a"
    # The pod is about to end, so the operator takes it out.
    after = configuration(snapshot, 2, ["b"])
    fleet.configure(after)
    assert fleet.decide(prepared(), after).decode_worker == "b"
