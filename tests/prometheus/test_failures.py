"""Prometheus goes on without the API server, and comes back from a crash with what it knew."""

from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.cluster]

Addresses = dict[str, str]


def test_known_pods_are_scraped_while_the_api_server_is_dead_and_new_ones_once_it_is_back(
    monitored: Any, addresses: Addresses
) -> None:
    monitored.wait_up(pod="known")
    monitored.cluster.apiserver.kill()
    known = monitored.servers["known"]
    before = known.scrapes
    monitored.wait(lambda: known.scrapes >= before + 5, "scrapes go on")
    assert monitored.query('up{pod="known"} == 1')
    monitored.cluster.apiserver.start()
    monitored.cluster.wait_ready()
    monitored.cluster.kubectl("delete", "pod", "known", "--now")
    monitored.serve(monitored.pod("new", {"http": 8000}, {"scrape": "true", "port": "8000"}), 8000)
    monitored.wait_up(pod="new")
    monitored.wait(lambda: not monitored.targets(pod="known"), "the pod that went is dropped")


def test_samples_outlive_a_crash(monitored: Any, addresses: Addresses) -> None:
    def first() -> float:
        found = monitored.query('min_over_time(asked_total{pod="survivor"}[10m])')
        return float(found[0]["value"][1]) if found else 0

    monitored.wait(lambda: first() == 1, "the first sample")
    monitored.kill()
    scrapes = monitored.servers["survivor"].scrapes
    monitored.start()
    assert first() == 1
    monitored.wait(lambda: monitored.servers["survivor"].scrapes > scrapes, "scrapes go on")
