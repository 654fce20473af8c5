"""A real Prometheus finds pods through the API server of a real cluster, and scrapes what their annotations say."""

from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.cluster]

Addresses = dict[str, str]


def test_series_of_a_pod_carry_where_they_come_from(monitored: Any, addresses: Addresses) -> None:
    monitored.wait(lambda: bool(monitored.query('asked_total{pod="labelled"}')), "the series")
    (sample,) = monitored.query('asked_total{pod="labelled"}')
    assert sample["metric"] == {
        "__name__": "asked_total", "job": "east", "instance": f"{addresses['labelled']}:8000", "cluster": "east",
        "namespace": "default", "pod": "labelled", "prfaas_pool": "prefill-west", "prfaas_role": "prefill",
        "prfaas_route": "chat",
    }  # fmt: skip


def test_values_follow_the_server(monitored: Any, addresses: Addresses) -> None:
    def value() -> float:
        return float(next((sample["value"][1] for sample in monitored.query('asked_total{pod="counting"}')), 0))

    monitored.wait(lambda: value() > 3, "values that grow")
    assert value() <= monitored.servers["counting"].scrapes


def test_a_pod_is_scraped_once_however_many_ports_it_has(monitored: Any, addresses: Addresses) -> None:
    """At the annotated port, which it need not declare, and path."""
    (target,) = monitored.wait_up(pod="many")
    assert target["scrapeUrl"] == f"http://{addresses['many']}:9000/stats"


def test_a_port_called_metrics_is_scraped_beside_the_annotated_one(monitored: Any, addresses: Addresses) -> None:
    found = monitored.wait_up(2, pod="sidecar")
    instances = sorted(target["labels"]["instance"] for target in found)
    assert instances == [f"{addresses['sidecar']}:8000", f"{addresses['sidecar']}:8080"]


def test_only_running_pods_that_ask_for_it_are_scraped(monitored: Any, addresses: Addresses) -> None:
    # What was created before it has been seen when the last one is.
    monitored.wait_up(pod=list(addresses)[-1])
    assert not [pod for pod in ("silent", "refusing", "pending") if monitored.targets(pod=pod)]


def test_a_pod_that_does_not_answer_is_down_and_not_forgotten(monitored: Any, addresses: Addresses) -> None:
    monitored.wait(lambda: bool(monitored.query('up{pod="mute", prfaas_role="prefill"} == 0')), "up is 0")


def test_servers_that_are_no_pods_are_scraped(monitored: Any) -> None:
    monitored.serve(monitored.static_host, 9100, "/stats")
    (target,) = monitored.wait_up(job="link")
    assert target["labels"] == {"job": "link", "instance": f"{monitored.static_host}:9100", "from": "west"}


def test_pods_that_go_away_are_dropped(monitored: Any, addresses: Addresses) -> None:
    gone = ("deleted", "finished")
    for name in gone:
        monitored.wait_up(pod=name)
    monitored.cluster.kubectl("delete", "pod", "deleted", "--now")
    monitored.phase("finished", "Succeeded", addresses["finished"])
    for name in gone:
        monitored.wait(lambda pod=name: not monitored.targets(pod=pod), f"{name} is no target any more")
        # Prometheus marks the series of a target that goes as stale.
        monitored.wait(lambda pod=name: not monitored.query(f'up{{pod="{pod}"}}'), f"{name} has no series any more")
