"""How many pods of a workload a node drain may take at once."""

from typing import Any

from prfaas_operator.children.metadata import Owner, Role, build_metadata, identity_labels


def build_disruption_budget(owner: Owner, name: str, role: Role, max_unavailable: int | str = 1) -> dict[str, Any]:
    """Return a budget; of one pod, a drain never stops and never takes a workload down at once."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": build_metadata(owner, name, role),
        "spec": {"maxUnavailable": max_unavailable, "selector": {"matchLabels": identity_labels(role, owner.name)}},
    }
