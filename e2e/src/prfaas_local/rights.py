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


def _objects() -> list[dict[str, Any]]:
    role = {
        "apiVersion": f"{_RBAC}/v1",
        "kind": "ClusterRole",
        "metadata": {"name": POD_READERS},
        "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}],
    }
    return [
        role,
        _binding("prfaas-local:nodes", "system:node", NODES),
        _binding("prfaas-local:node-proxiers", "system:node-proxier", NODES),
        _binding(POD_READERS, POD_READERS, POD_READERS),
    ]


def _binding(name: str, role: str, group: str) -> dict[str, Any]:
    return {
        "apiVersion": f"{_RBAC}/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": name},
        "roleRef": {"apiGroup": _RBAC, "kind": "ClusterRole", "name": role},
        "subjects": [{"apiGroup": _RBAC, "kind": "Group", "name": group}],
    }
