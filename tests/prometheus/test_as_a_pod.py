"""A real API server takes the objects of a Prometheus that runs as a pod, field by field."""

import json
from typing import Any

import pytest

from prfaas_local.kind.prometheus_pod import manifest

pytestmark = [pytest.mark.slow, pytest.mark.cluster]


def test_the_objects_are_valid(monitored: Any) -> None:
    objects = manifest("default", {"east": b"x"}, pod_labels={"prfaas_pool": "prfaas.dev/pool"})
    items = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
    answer = monitored.cluster.kubectl(
        "apply", "--dry-run=server", "--validate=strict", "--output=name", "--filename=-", stdin=items
    )
    assert answer.split() == [
        "configmap/prometheus", "secret/prometheus", "deployment.apps/prometheus", "service/prometheus"
    ]  # fmt: skip
