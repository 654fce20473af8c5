"""The Deployments of pools and of routers in front."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from prfaas_operator.children.config_map import PROFILE_FILE, profile_name
from prfaas_operator.children.merging import TemplateError, with_defaults, with_required
from prfaas_operator.children.metadata import (
    MANAGED_BY,
    MANAGED_BY_LABEL,
    REVISION_LABEL,
    SERVING,
    SERVING_LABEL,
    Owner,
    Role,
    build_metadata,
    digest,
    identity_labels,
    ownership,
)
from prfaas_operator.children.router import (
    HTTP_PORT,
    RouterWorkload,
    build_router_container,
    build_router_volumes,
    field_env,
)

_PROFILE_FOLDER = "/etc/prfaas/profile"
# Pods start one by one beside the old ones, so that a rollout takes no capacity away.
_STRATEGY = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}
_REVISIONS_KEPT = 3
# Of the profile, engines read what model they serve and what their KV is; the stand-ins also imitate its times.
_READ_BY_ENGINES = ("model", "engine", "kv")
_READ_BY_STAND_INS = (*_READ_BY_ENGINES, "prefill", "kvSize", "decode", "prefixCache")
_STAND_INS = ("Sim", "Tiny")
# A pod that is told to go has this much time to do so after what it had to do is done, or cut off.
_CLOSING_S = 15
_LEAST_GRACE_S = 30  # what Kubernetes gives by default


@dataclass(frozen=True, slots=True)
class PoolWorkload:
    """One pool, as its cluster should run it."""

    owner: Owner
    role: Role
    replicas: int
    template: Mapping[str, Any]  # the user's PodTemplateSpec
    profile_spec: Mapping[str, Any]
    kv_fingerprint: str
    http_port: int
    kv_port: int
    drain_s: int  # what a worker that is told to go may take for its requests, if the template says nothing
    sidecar: RouterWorkload | None = None


def service_account(template: Mapping[str, Any], default: str) -> str:
    """Return the ServiceAccount of a template's pods."""
    return str(template["spec"].get("serviceAccountName") or default)


def build_pool_deployment(pool: PoolWorkload) -> dict[str, Any]:
    """Return the Deployment of a pool's workers.

    Raises `TemplateError` when the user's template takes a name that the operator needs.
    """
    given = pool.template["spec"]
    grace_s = given.get("terminationGracePeriodSeconds", max(_LEAST_GRACE_S, pool.drain_s + _CLOSING_S))
    if not isinstance(grace_s, int) or grace_s < 0:
        raise TemplateError(
            f"template.spec.terminationGracePeriodSeconds: {grace_s!r} is not a whole number of seconds; give one, or none"
        )
    drain_s = max(1, grace_s - min(_CLOSING_S, grace_s // 3))
    containers = list(given["containers"])
    containers[0] = _build_worker(pool, containers[0], drain_s)
    volumes: list[dict[str, Any]] = [{"name": "prfaas-profile", "configMap": {"name": profile_name(pool.owner.name)}}]
    if pool.sidecar is not None:
        router = build_router_container(pool.sidecar, drain_s=drain_s)
        containers = with_required("template.spec.containers", containers, [router])
        volumes += build_router_volumes(pool.sidecar)
    spec = {
        **given,
        "terminationGracePeriodSeconds": grace_s,
        "serviceAccountName": service_account(pool.template, pool.owner.name),
        "containers": containers,
        "volumes": with_required("template.spec.volumes", given.get("volumes", ()), volumes),
    }
    identity = [_read_at_start(pool.profile_spec), pool.template.get("metadata") or {}, spec]
    return _build_deployment(
        pool.owner, pool.owner.name, pool.role, pool.replicas, pool.template.get("metadata") or {}, spec,
        scrape_port=pool.http_port, revision=digest(identity),
        more_labels={SERVING_LABEL: SERVING} if pool.sidecar is not None else {},
    )  # fmt: skip


def build_router_deployment(router: RouterWorkload) -> dict[str, Any]:
    """Return the Deployment of routers that stand in front."""
    spec = {
        "serviceAccountName": router.name,
        "containers": [build_router_container(router)],
        "volumes": build_router_volumes(router),
        # The router stops listening, finishes what it has, and then exits.
        "terminationGracePeriodSeconds": 40,
    }
    return _build_deployment(
        router.owner, router.name, "router", router.replicas, {}, spec,
        scrape_port=HTTP_PORT, revision=digest(spec),
    )  # fmt: skip


def revision(deployment: Mapping[str, Any]) -> str:
    """Return what a Deployment's pods are told apart by from those of an earlier template or profile."""
    return str(deployment["spec"]["template"]["metadata"]["labels"][REVISION_LABEL])


def selector_text(role: Role, name: str) -> str:
    """Return the selector of the pods in the text form of the scale subresource."""
    return ",".join(f"{label}={value}" for label, value in sorted(identity_labels(role, name).items()))


def _read_at_start(profile_spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return what workers read of a profile when they start, so that another value has to start them again.

    A price that is edited, or times that were measured anew, are for the operator and the routers, and drop no stream.
    """
    stands_in = (profile_spec.get("engine") or {}).get("name") in _STAND_INS
    fields = _READ_BY_STAND_INS if stands_in else _READ_BY_ENGINES
    return {field: profile_spec[field] for field in fields if field in profile_spec}


def _build_deployment(
    owner: Owner,
    name: str,
    role: Role,
    replicas: int,
    given_metadata: Mapping[str, Any],
    pod_spec: Mapping[str, Any],
    *,
    scrape_port: int,
    revision: str,
    more_labels: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    selector = identity_labels(role, owner.name)
    labels = {
        **(given_metadata.get("labels") or {}),
        MANAGED_BY_LABEL: MANAGED_BY,
        **selector,
        REVISION_LABEL: revision,
        **(more_labels or {}),
    }
    annotations = {
        "prometheus.io/scrape": "true",
        "prometheus.io/port": str(scrape_port),
        **(given_metadata.get("annotations") or {}),
        **ownership(owner),
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": build_metadata(owner, name, role),
        "spec": {
            "replicas": replicas,
            "revisionHistoryLimit": _REVISIONS_KEPT,
            "selector": {"matchLabels": selector},
            "strategy": _STRATEGY,
            "template": {"metadata": {"labels": labels, "annotations": annotations}, "spec": dict(pod_spec)},
        },
    }


def _build_worker(pool: PoolWorkload, given: Mapping[str, Any], drain_s: int) -> dict[str, Any]:
    """Return the worker's container: what the template says, completed where it says nothing."""
    for mount in given.get("volumeMounts", ()):
        if mount.get("mountPath") == _PROFILE_FOLDER:
            raise TemplateError(
                f"template.spec.containers[0].volumeMounts: {_PROFILE_FOLDER} is where the operator puts the profile; "
                "mount yours elsewhere"
            )
    # Loading a model takes minutes. Until the first answer nothing else is asked of the worker.
    container: dict[str, Any] = {
        "startupProbe": _probe(pool.http_port, period_s=1, failures=1800),
        "livenessProbe": _probe(pool.http_port, period_s=10, failures=6),
        "readinessProbe": _probe(pool.http_port, period_s=2, failures=2),
        **given,
    }
    container["ports"] = with_defaults(
        given.get("ports", ()),
        (
            {"name": "http", "containerPort": pool.http_port, "protocol": "TCP"},
            {"name": "kv", "containerPort": pool.kv_port, "protocol": "TCP"},
        ),
    )
    container["env"] = with_defaults(
        given.get("env", ()),
        (
            field_env("POD_NAME", "metadata.name"),
            field_env("POD_NAMESPACE", "metadata.namespace"),
            field_env("POD_IP", "status.podIP"),
            {"name": "PRFAAS_PROFILE_PATH", "value": f"{_PROFILE_FOLDER}/{PROFILE_FILE}"},
            {"name": "PRFAAS_KV_FINGERPRINT", "value": pool.kv_fingerprint},
            {"name": "PRFAAS_DRAIN_SECONDS", "value": str(drain_s)},
            field_env("VLLM_NIXL_SIDE_CHANNEL_HOST", "status.podIP"),
            {"name": "VLLM_NIXL_SIDE_CHANNEL_PORT", "value": str(pool.kv_port)},
            {"name": "PYTHONHASHSEED", "value": "0"},
        ),
    )
    container["volumeMounts"] = [
        *given.get("volumeMounts", ()),
        {"name": "prfaas-profile", "mountPath": _PROFILE_FOLDER, "readOnly": True},
    ]
    return container


def _probe(port: int, *, period_s: int, failures: int) -> dict[str, Any]:
    return {
        "httpGet": {"path": "/health", "port": port},
        "periodSeconds": period_s,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }
