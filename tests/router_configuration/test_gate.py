"""Whether a router is ready, and what it says of demand."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from google.protobuf import json_format

from prfaas_core.demand import PRESSING_S
from prfaas_protocol import configuration_pb2 as pb
from prfaas_router.admission import Gate
from prfaas_router.configuration import Configuration, check
from prfaas_router.demand import DemandMeter
from prfaas_router.fleet import Fleet
from prfaas_router.metrics import Metrics

Snapshot = Callable[..., dict[str, object]]
ROUTE = "ns/chat"


def configuration(snapshot: Snapshot, decode: list[str], *, wakes: bool = True) -> Configuration:
    """A route whose decode pool has workers of these names; its local prefill pool has none."""
    message = snapshot([], [], None, wakes=wakes)
    pool = message["decode"]
    assert isinstance(pool, dict)
    pool["endpoints"] = [{"name": name, "address": "127.0.0.1", "http_port": 8000} for name in decode]
    return check(json_format.ParseDict(message, pb.Snapshot()), ROUTE)


def filled(snapshot: Snapshot) -> Configuration:
    """The same, with a worker in each pool."""
    message = snapshot([], [], None, wakes=True)
    for pool in (message["decode"], message["local_prefill"]):
        assert isinstance(pool, dict)
        pool["endpoints"] = [{"name": "a", "address": "127.0.0.1", "http_port": 8000}]
    return check(json_format.ParseDict(message, pb.Snapshot()), ROUTE)


@pytest.mark.parametrize(
    ("decode", "wakes", "pod", "ready"),
    [
        (["a"], False, None, True),
        ([], True, None, True),
        ([], False, None, False),
        ([], False, "a", True),
    ],
    ids=["workers", "asleep", "broken", "sidecar whose pod is not listed before it is ready"],
)
async def test_readiness(snapshot: Snapshot, decode: list[str], wakes: bool, pod: str | None, ready: bool) -> None:
    fleet = Fleet(lambda: 0.0, decode_pod=pod)
    gate = Gate(ROUTE, fleet, Metrics(ROUTE))
    assert not gate.ready
    gate.configure(configuration(snapshot, decode, wakes=wakes))
    assert gate.ready is ready
    gate.drain(1.0)
    assert not gate.ready


class Heard:
    """A meter with a clock, and how often it has called."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.calls = 0
        self.meter = DemandMeter(lambda: self.now_s, Metrics(ROUTE))
        self.meter.on_wanted = self._call

    def _call(self) -> None:
        self.calls += 1


def test_a_pool_without_workers_is_called_for_once(snapshot: Snapshot) -> None:
    """More requests make no more calls: what they want is in the regular reports."""
    heard = Heard()
    heard.meter.configure(configuration(snapshot, ["a"]))
    heard.meter.wants("decode")
    assert heard.calls == 0
    for pools in (1, 2):
        heard.meter.wants("local")
        heard.meter.wants("local")
        assert heard.calls == pools
        # It wakes, and sleeps again.
        heard.meter.configure(filled(snapshot))
        heard.meter.wants("local")
        heard.meter.configure(configuration(snapshot, ["a"]))
    heard.meter.wants("local")
    heard.now_s += PRESSING_S + 1
    heard.meter.wants("local")
    assert heard.calls == 4, "after a while nobody may remember"


def test_a_report_has_every_pool(snapshot: Snapshot) -> None:
    heard = Heard()
    heard.meter.configure(configuration(snapshot, []))
    heard.meter.wants("local")
    heard.meter.wants("a pool that has just left")
    heard.now_s += 3.0
    decode, local = heard.meter.report(2).pools
    assert (decode.name, decode.decode, decode.waiting, decode.since_last_s) == ("decode", True, 2, 0.0)
    assert (local.name, local.decode, local.waiting, local.since_last_s) == ("local", False, 0, 3.0)
    assert local.wanted_rps > 0
    decode, _ = heard.meter.report(0).pools
    assert not decode.HasField("since_last_s"), "nobody has wanted it, which is not the same as now"
