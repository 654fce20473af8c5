"""The configuration is complete, and names what is wrong with its input."""

import json
from pathlib import Path
from typing import Any

import pytest

from prfaas_local.prometheus import PodSource, StaticJob, arguments, configuration

EAST = PodSource("east", Path("/run/east.kubeconfig"))


def test_each_cluster_is_a_job_with_its_own_credentials() -> None:
    west = PodSource("west", Path("/run/west.kubeconfig"))
    document = json.loads(configuration([EAST, west], pod_labels={}, interval_s=2.5))
    assert document["global"]["scrape_interval"] == document["global"]["scrape_timeout"] == "2500ms"
    assert [(job["job_name"], job["kubernetes_sd_configs"]) for job in document["scrape_configs"]] == [
        ("east", [{"role": "pod", "kubeconfig_file": "/run/east.kubeconfig"}]),
        ("west", [{"role": "pod", "kubeconfig_file": "/run/west.kubeconfig"}]),
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pods": [EAST, EAST]}, "'east' names two clusters or jobs"),
        ({"static": [StaticJob("east", ["127.0.0.1:1"])]}, "'east' names two clusters or jobs"),
        ({"pod_labels": {"prfaas.pool": "x"}}, "pod label 'prfaas.pool' is no Prometheus label"),
        ({"pod_labels": {"cluster": "x"}}, "pod label 'cluster' is set for every pod already"),
        ({"pod_labels": {"__address__": "x"}}, "pod label '__address__' is no Prometheus label"),
        ({"metrics_port_names": ["Metrics"]}, "metrics port 'Metrics' is no port name"),
        ({"interval_s": 0}, "interval_s is 0; it must be 0.001 or more"),
    ],
)  # fmt: skip
def test_bad_input_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        configuration(**({"pods": [EAST], "pod_labels": {}} | changes))


def test_arguments_name_file_folder_and_address() -> None:
    command = arguments(Path("/run/p.json"), Path("/run/samples"), "127.1.2.3:9090", retention="2h")
    assert "--config.file=/run/p.json" in command
    assert "--storage.tsdb.path=/run/samples" in command
    assert "--web.listen-address=127.1.2.3:9090" in command
    assert "--storage.tsdb.retention.time=2h" in command
