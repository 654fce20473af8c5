"""The router's container, in a pod of its own or beside a decode worker."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from prfaas_operator.children.config_map import CA_FILE
from prfaas_operator.children.merging import with_defaults, with_required
from prfaas_operator.children.metadata import Owner

CONTAINER = "router"
HTTP_PORT = 8080
GRPC_PORT = 9090
TOKEN_AUDIENCE = "prfaas.dev/router"  # noqa: S105  a name, not a secret
_TOKEN_LIFETIME_S = 3600
_TOKEN_FOLDER = "/var/run/secrets/prfaas.dev"  # noqa: S105  a path
_CA_FOLDER = "/etc/prfaas/operator"
_STATE_FOLDER = "/var/lib/prfaas"


def router_name(route: str) -> str:
    """Return the name of a route's children."""
    return f"{route}-router"


@dataclass(frozen=True, slots=True)
class RouterWorkload:
    """The routers of one route, as its cluster should run them."""

    owner: Owner
    cluster: str  # name of the MemberCluster
    operator_address: str
    container: Mapping[str, Any]  # as the route's spec gives it
    replicas: int
    sidecar_of: str | None  # the decode pool whose pods carry the router; None: a Deployment of its own

    @property
    def name(self) -> str:
        return router_name(self.owner.name)


def build_router_container(router: RouterWorkload, *, drain_s: int | None = None) -> dict[str, Any]:
    """Return the container: what the route says, completed with arguments, environment, ports, probes and mounts.

    `drain_s` is how long requests may take after it was told to go, if that is not what a router takes by itself.
    """
    given = router.container
    container: dict[str, Any] = {
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "startupProbe": _probe("/health", period_s=1, failures=60),
        "livenessProbe": _probe("/health", period_s=10, failures=6),
        "readinessProbe": _probe("/ready", period_s=2, failures=2),
        **given,
        "name": CONTAINER,
    }
    container["args"] = [
        *given.get("args", ()),
        "--host=$(POD_IP)",
        f"--http-port={HTTP_PORT}",
        f"--grpc-port={GRPC_PORT}",
        f"--route={router.owner.namespace}/{router.owner.name}",
        f"--cluster={router.cluster}",
        "--router-name=$(POD_NAME)",
        f"--operator-address={router.operator_address}",
        f"--operator-ca={_CA_FOLDER}/{CA_FILE}",
        f"--operator-token={_TOKEN_FOLDER}/token",
        f"--state-dir={_STATE_FOLDER}",
        *([f"--drain-s={drain_s}"] if drain_s is not None else []),
        *(["--decode-pod=$(POD_NAME)"] if router.sidecar_of else []),
    ]
    container["env"] = with_defaults(
        given.get("env", ()), (field_env("POD_NAME", "metadata.name"), field_env("POD_IP", "status.podIP"))
    )
    container["ports"] = with_defaults(
        given.get("ports", ()),
        (
            {"name": "router-http", "containerPort": HTTP_PORT, "protocol": "TCP"},
            {"name": "router-grpc", "containerPort": GRPC_PORT, "protocol": "TCP"},
        ),
    )
    container["volumeMounts"] = with_required(
        "router.container.volumeMounts",
        given.get("volumeMounts", ()),
        (
            {"name": "prfaas-operator", "mountPath": _CA_FOLDER, "readOnly": True},
            {"name": "prfaas-token", "mountPath": _TOKEN_FOLDER, "readOnly": True},
            {"name": "prfaas-state", "mountPath": _STATE_FOLDER},
        ),
    )
    return container


def build_router_volumes(router: RouterWorkload) -> list[dict[str, Any]]:
    """Return the volumes of the router's container."""
    token = {"path": "token", "audience": TOKEN_AUDIENCE, "expirationSeconds": _TOKEN_LIFETIME_S}
    return [
        {"name": "prfaas-operator", "configMap": {"name": router.name}},
        {"name": "prfaas-token", "projected": {"sources": [{"serviceAccountToken": token}]}},
        {"name": "prfaas-state", "emptyDir": {}},
    ]


def field_env(name: str, path: str) -> dict[str, Any]:
    """Return an environment variable with the value of a field of the pod."""
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}


def _probe(path: str, *, period_s: int, failures: int) -> dict[str, Any]:
    return {
        "httpGet": {"path": path, "port": HTTP_PORT},
        "periodSeconds": period_s,
        "timeoutSeconds": 2,
        "failureThreshold": failures,
    }
