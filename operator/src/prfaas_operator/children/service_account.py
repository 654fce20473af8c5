"""The identity of a workload's pods."""

from typing import Any

from prfaas_operator.children.metadata import Owner, Role, build_metadata


def build_service_account(owner: Owner, name: str, role: Role) -> dict[str, Any]:
    """Return a ServiceAccount without rights, and without a token in pods that do not ask for one."""
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": build_metadata(owner, name, role),
        "automountServiceAccountToken": False,
    }
