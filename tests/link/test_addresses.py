"""A link listens where the far cluster's pods appear at the near end: translated addresses, declared TCP ports."""

import ipaddress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prfaas_local.link.endpoints import endpoints
from prfaas_local.link.translation import Translation, TranslationError

TRANSLATION = Translation.parse("127.30.0.0/16", "127.130.0.0/16")


@pytest.mark.parametrize(
    ("address", "translated"),
    [
        ("127.30.0.5", "127.130.0.5"),
        ("127.30.255.255", "127.130.255.255"),
        ("127.31.0.5", None),
        ("127.130.0.5", None),
        ("::1", None),
        ("pod", None),
        ("", None),
    ],
)
def test_an_address_keeps_its_host_part(address: str, translated: str | None) -> None:
    assert TRANSLATION.translate(address) == translated


@settings(deadline=None)
@given(st.integers(8, 32), st.integers(0, 2**32 - 1))
def test_translation_is_one_to_one(length: int, host: int) -> None:
    there = ipaddress.ip_network((f"10.0.0.0/{length}"), strict=False)
    here = ipaddress.ip_network((f"20.0.0.0/{length}"), strict=False)
    address = str(there[host % there.num_addresses])
    translated = Translation(there, here).translate(address)
    assert translated is not None
    assert Translation(here, there).translate(translated) == address


def test_families_other_than_ipv4_work() -> None:
    assert Translation.parse("fd00:1::/64", "fd00:2::/64").translate("fd00:1::7") == "fd00:2::7"


@pytest.mark.parametrize(
    ("pods", "translated", "message"),
    [
        ("127.30.0.0/16", "127.130.0.0/17", r"127.130.0.0/17 has to be of the family and length .* 127.30.0.0/16"),
        ("127.30.0.0/16", "fd00::/16", "family and length"),
        ("127.30.0.0/16", "127.30.0.0/16", "overlaps"),
        ("127.30.0.1/16", "127.130.0.0/16", r"pod CIDR is '127.30.0.1/16': .*host bits set; write it like"),
        ("127.30.0.0/16", "west", "translated CIDR is 'west'"),
    ],
)
def test_prefixes_that_do_not_fit_are_refused(pods: str, translated: str, message: str) -> None:
    with pytest.raises(TranslationError, match=message):
        Translation.parse(pods, translated)


def pod(address: str | None = "127.30.0.5", phase: str = "Running", **spec: Any) -> dict[str, Any]:
    return {"spec": spec, "status": {"phase": phase} | ({"podIP": address} if address else {})}


PORTS = [{"containerPort": 8000}, {"containerPort": 5600, "protocol": "TCP"}, {"containerPort": 53, "protocol": "UDP"}]


def test_every_tcp_port_of_a_live_pod_is_listened_on() -> None:
    sidecar = {"restartPolicy": "Always", "ports": [{"containerPort": 9090}]}
    setup = {"ports": [{"containerPort": 9999}]}
    found = endpoints([pod(containers=[{"ports": PORTS}, {}], initContainers=[sidecar, setup])], TRANSLATION)
    assert found == {("127.130.0.5", port): ("127.30.0.5", port) for port in (8000, 5600, 9090)}


@pytest.mark.parametrize(
    "left_out",
    [
        pod(None, containers=[{"ports": PORTS}]),
        pod("127.99.0.5", containers=[{"ports": PORTS}]),
        pod(phase="Succeeded", containers=[{"ports": PORTS}]),
        pod(phase="Failed", containers=[{"ports": PORTS}]),
        pod(containers=[{"ports": None}], initContainers=None),
        {},
    ],
)
def test_pods_without_a_reachable_port_are_left_out(left_out: dict[str, Any]) -> None:
    assert endpoints([left_out], TRANSLATION) == {}


def test_an_address_that_an_ended_pod_left_is_its_successors() -> None:
    ended = pod(phase="Failed", containers=[{"ports": [{"containerPort": 1}]}])
    live = pod(containers=[{"ports": [{"containerPort": 2}]}])
    assert endpoints([live, ended], TRANSLATION) == {("127.130.0.5", 2): ("127.30.0.5", 2)}
