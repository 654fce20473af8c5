"""What the parts beside a control plane may do in it: node agents, Prometheus and links, each with a certificate of its own."""

from __future__ import annotations

from typing import Any

import httpx

NODES = "system:nodes"
"""Group of the node agents. A binding gives it the rights of a kubelet and of kube-proxy."""
POD_READERS = "prfaas-local:pod-readers"
"""Group that may read pods, which is what service discovery needs."""
_FIELD_MANAGER = "prfaas-local"
_RBAC = "rbac.authorization.k8s.io"


def grant(client: httpx.Client) -> None:
    """Create the roles and bindings, or bring them back to what they should be.

    Raises:
        httpx.HTTPStatusError: the API server refuses one.
    """
    for body in _objects():
        plural = body["kind"].lower() + "s"
        answer = client.patch(
            f"/apis/{_RBAC}/v1/{plural}/{body['metadata']['name']}",
            params={"fieldManager": _FIELD_MANAGER, "force": "true"},
            headers={"Content-Type": "application/apply-patch+yaml"},
            json=body,
        )
        answer.raise_for_status()


def pod_reader(namespace: str, service_account: str) -> list[dict[str, Any]]:
    """Return the role that may read pods, and what gives it to a ServiceAccount."""
    subject = {"kind": "ServiceAccount", "namespace": namespace, "name": service_account}
    return [_pod_readers(), _binding(POD_READERS, POD_READERS, subject)]


def _objects() -> list[dict[str, Any]]:
    return [
        _pod_readers(),
        _binding("prfaas-local:nodes", "system:node", _group(NODES)),
        _binding("prfaas-local:node-proxiers", "system:node-proxier", _group(NODES)),
        _binding(POD_READERS, POD_READERS, _group(POD_READERS)),
    ]


def _pod_readers() -> dict[str, Any]:
    return {
        "apiVersion": f"{_RBAC}/v1",
        "kind": "ClusterRole",
        "metadata": {"name": POD_READERS},
        "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}],
    }


def _group(name: str) -> dict[str, str]:
    return {"apiGroup": _RBAC, "kind": "Group", "name": name}


def _binding(name: str, role: str, subject: dict[str, str]) -> dict[str, Any]:
    return {
        "apiVersion": f"{_RBAC}/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": name},
        "roleRef": {"apiGroup": _RBAC, "kind": "ClusterRole", "name": role},
        "subjects": [subject],
    }
