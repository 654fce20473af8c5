"""Prometheus as a pod has the same configuration as the local one, with files from its own objects."""

import json
from pathlib import PurePosixPath
from typing import Any

from prfaas_local import prometheus
from prfaas_local.kind.prometheus_pod import manifest


def test_the_configuration_is_the_local_ones_and_its_files_are_mounted() -> None:
    labels = {"prfaas_pool": "prfaas.dev/pool"}
    objects = manifest("monitoring", {"west": b"w", "east": b"e"}, pod_labels=labels, interval_s=2)
    by_kind: dict[str, Any] = {item["kind"]: item for item in objects}
    assert {item["metadata"]["namespace"] for item in objects} == {"monitoring"}
    configuration = json.loads(by_kind["ConfigMap"]["data"]["prometheus.json"])
    files = [job["kubernetes_sd_configs"][0]["kubeconfig_file"] for job in configuration["scrape_configs"]]
    assert files == ["/etc/prometheus/kubeconfigs/east", "/etc/prometheus/kubeconfigs/west"]
    assert by_kind["Secret"]["stringData"] == {"east": "e", "west": "w"}
    local = json.loads(
        prometheus.configuration(
            [prometheus.PodSource(name, path) for name, path in zip(("east", "west"), map(PurePosixPath, files), strict=True)],
            pod_labels=labels, interval_s=2,
        )
    )  # fmt: skip
    assert configuration == local
    pod = by_kind["Deployment"]["spec"]["template"]["spec"]
    mounts = {mount["name"]: mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
    assert mounts == {
        "configuration": "/etc/prometheus/configuration", "kubeconfigs": "/etc/prometheus/kubeconfigs", "data": "/prometheus"
    }  # fmt: skip
    assert {volume["name"] for volume in pod["volumes"]} == set(mounts)
    arguments = pod["containers"][0]["args"]
    assert "--config.file=/etc/prometheus/configuration/prometheus.json" in arguments
    assert "--storage.tsdb.path=/prometheus" in arguments
    assert by_kind["Service"]["spec"]["selector"] == by_kind["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert by_kind["Service"]["spec"]["ports"][0]["port"] == 9090
