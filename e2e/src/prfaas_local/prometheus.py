"""The configuration of a Prometheus that finds the pods of several clusters by Kubernetes service discovery.

A pod is scraped when it runs and has the annotation `prometheus.io/scrape: "true"`, at `prometheus.io/port` and
`prometheus.io/path` (`/metrics` without it), once however many ports it declares; without the port's annotation, every
declared port is scraped. A container that has metrics beside
those, a sidecar say, declares its port under one of the `metrics_port_names`; that port is scraped too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

METRICS_PORT_NAMES = ("metrics",)
_LABEL = re.compile(r"(?!__)[a-zA-Z_][a-zA-Z0-9_]*")
_OWN_LABELS = ("cluster", "namespace", "pod", "job", "instance")
_PORT_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,13}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class PodSource:
    """A cluster whose pods are scraped.

    Attributes:
        cluster: value of the label `cluster`.
        kubeconfig: of a user who may get, list and watch pods.
    """

    cluster: str
    kubeconfig: PurePath


@dataclass(frozen=True, slots=True)
class StaticJob:
    """Servers that are no pods.

    Attributes:
        name: value of the label `job`.
        targets: HOST:PORT of each.
        labels: set on all of their samples.
    """

    name: str
    targets: Sequence[str]
    labels: Mapping[str, str] = field(default_factory=dict)
    path: str = "/metrics"


def configuration(
    pods: Sequence[PodSource],
    *,
    pod_labels: Mapping[str, str],
    static: Sequence[StaticJob] = (),
    interval_s: float = 1.0,
    metrics_port_names: Sequence[str] = METRICS_PORT_NAMES,
) -> str:
    """Return the content of Prometheus' configuration file.

    Args:
        pods: the clusters.
        pod_labels: label of the samples to label of the pod that it is copied from, beside `cluster`, `namespace`, `pod`.
        static: other servers.
        interval_s: time between two scrapes of a target, in whole milliseconds; also their timeout.
        metrics_port_names: names of ports that are scraped beside the annotated one.

    Raises:
        ValueError: a name is used twice or is none, or the interval is not positive; the message names it.
    """
    names = [*(source.cluster for source in pods), *(job.name for job in static)]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{name!r} names two clusters or jobs; each needs a name of its own")
    for label in pod_labels:
        if not _LABEL.fullmatch(label):
            raise ValueError(f"pod label {label!r} is no Prometheus label; use letters, digits and _, not first __")
        if label in _OWN_LABELS:
            raise ValueError(f"pod label {label!r} is set for every pod already; take another name")
    for port in metrics_port_names:
        if not _PORT_NAME.fullmatch(port):
            raise ValueError(f"metrics port {port!r} is no port name; use up to 15 of a-z, 0-9 and -")
    if round(interval_s * 1000) < 1:
        raise ValueError(f"interval_s is {interval_s:g}; it must be 0.001 or more")
    interval = f"{round(interval_s * 1000)}ms"
    document = {
        "global": {"scrape_interval": interval, "scrape_timeout": interval, "evaluation_interval": interval},
        "scrape_configs": [
            *(_pod_job(source, pod_labels, metrics_port_names) for source in pods),
            *(_static_job(job) for job in static),
        ],
    }
    # JSON is YAML, and quotes every string as Prometheus' parser reads it.
    return json.dumps(document, indent=2) + "\n"


def arguments(
    configuration_path: PurePath, storage_folder: PurePath, listen_address: str, *, retention: str = "1d"
) -> list[str]:
    """Return the command line of Prometheus.

    Args:
        configuration_path: the file with `configuration`.
        storage_folder: for samples, made when missing; relative paths in the configuration are relative to its file.
        listen_address: HOST:PORT of the API.
        retention: how long samples are kept, as Prometheus writes durations.
    """
    return [
        f"--config.file={configuration_path}",
        f"--storage.tsdb.path={storage_folder}",
        f"--storage.tsdb.retention.time={retention}",
        f"--web.listen-address={listen_address}",
        # By default it lets up to 5 s of changes gather, after discovery has done the same.
        "--scrape.discovery-reload-interval=1s",
        "--log.level=warn",
    ]


def _pod_job(source: PodSource, pod_labels: Mapping[str, str], port_names: Sequence[str]) -> dict[str, Any]:
    pod = "__meta_kubernetes_pod_"
    copied = {"namespace": "__meta_kubernetes_namespace", "pod": f"{pod}name"}
    copied |= {label: f"{pod}label_{_sanitized(name)}" for label, name in pod_labels.items()}
    relabeling = [
        {"action": "keep", "source_labels": [_annotation("scrape")], "regex": "true"},
        {"action": "keep", "source_labels": [f"{pod}phase"], "regex": "Running"},
        # Discovery makes a target of every declared port. Those that get the same address and labels become one again,
        # so nothing of the container or the port may be copied to a label.
        _replace("__address__", [f"{pod}ip", _annotation("port")], r"(.+);(\d+)", "$1:$2"),
        _replace("__metrics_path__", [_annotation("path")], "(/.*)", "$1"),
        *(
            _replace("__address__", [f"{pod}container_port_name", f"{pod}ip", f"{pod}container_port_number"],
                     rf"{re.escape(name)};(.+);(\d+)", "$1:$2")
            for name in port_names
        ),
        {"target_label": "cluster", "replacement": source.cluster.replace("$", "$$")},
        *(_replace(label, [found], "(.+)", "$1") for label, found in copied.items()),
    ]  # fmt: skip
    return {
        "job_name": source.cluster,
        "kubernetes_sd_configs": [{"role": "pod", "kubeconfig_file": str(source.kubeconfig)}],
        "relabel_configs": relabeling,
    }


def _static_job(job: StaticJob) -> dict[str, Any]:
    return {
        "job_name": job.name,
        "metrics_path": job.path,
        "static_configs": [{"targets": list(job.targets), "labels": dict(job.labels)}],
    }


def _replace(label: str, sources: Sequence[str], regex: str, replacement: str) -> dict[str, Any]:
    return {"source_labels": list(sources), "regex": regex, "target_label": label, "replacement": replacement}


def _annotation(name: str) -> str:
    return f"__meta_kubernetes_pod_annotation_prometheus_io_{name}"


def _sanitized(name: str) -> str:
    """Return a Kubernetes label's name as service discovery writes it."""
    return re.sub(r"[^a-zA-Z0-9_]", "_", name)
