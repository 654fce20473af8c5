"""Prometheus as a pod of the hub, for clusters whose pods are not reachable from the machine itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from prfaas_local import prometheus

IMAGE = "prom/prometheus:v3.7.3"
PORT = 9090
_FILES = PurePosixPath("/etc/prometheus")
_KUBECONFIGS = _FILES / "kubeconfigs"
_DATA = PurePosixPath("/prometheus")


def manifest(
    namespace: str, kubeconfigs: Mapping[str, bytes], *, pod_labels: Mapping[str, str], interval_s: float = 1.0
) -> list[dict[str, Any]]:
    """Return the objects of a Prometheus that scrapes the pods of several clusters; the Service is `prometheus`.

    Args:
        namespace: of the objects; it has to exist.
        kubeconfigs: by cluster, of users who may get, list and watch pods, and that work from a pod of the hub.
        pod_labels: as in `prometheus.configuration`.
        interval_s: as there.

    Raises:
        ValueError: as there.
    """
    sources = [prometheus.PodSource(cluster, _KUBECONFIGS / cluster) for cluster in sorted(kubeconfigs)]
    configuration = prometheus.configuration(sources, pod_labels=pod_labels, interval_s=interval_s)
    arguments = prometheus.arguments(_FILES / "configuration" / "prometheus.json", _DATA, f":{PORT}")
    labels = {"app.kubernetes.io/name": "prometheus"}
    pod = {
        "automountServiceAccountToken": False,
        "securityContext": {"runAsNonRoot": True, "runAsUser": 65534, "fsGroup": 65534},
        "containers": [
            {
                "name": "prometheus",
                "image": IMAGE,
                "args": arguments,
                "ports": [{"name": "http", "containerPort": PORT}],
                "readinessProbe": {"httpGet": {"path": "/-/ready", "port": "http"}},
                "volumeMounts": [
                    {"name": "configuration", "mountPath": str(_FILES / "configuration"), "readOnly": True},
                    {"name": "kubeconfigs", "mountPath": str(_KUBECONFIGS), "readOnly": True},
                    {"name": "data", "mountPath": str(_DATA)},
                ],
            }
        ],
        "volumes": [
            {"name": "configuration", "configMap": {"name": "prometheus"}},
            {"name": "kubeconfigs", "secret": {"secretName": "prometheus"}},
            {"name": "data", "emptyDir": {}},
        ],
    }
    deployment = {
        "replicas": 1,
        "strategy": {"type": "Recreate"},
        "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": pod},
    }
    secrets = {cluster: kubeconfig.decode() for cluster, kubeconfig in sorted(kubeconfigs.items())}
    metadata = {"name": "prometheus", "namespace": namespace, "labels": labels}
    service = {"selector": labels, "ports": [{"name": "http", "port": PORT, "targetPort": "http"}]}
    return [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"prometheus.json": configuration}},
        {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": secrets},
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": deployment},
        {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": service},
    ]
