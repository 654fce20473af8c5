"""The workers of one pool, as Prometheus labels them."""

from __future__ import annotations

from dataclasses import dataclass

from prfaas_operator.children.metadata import Role


@dataclass(frozen=True, slots=True)
class Workers:
    """The workers of one pool, as Prometheus labels them."""

    cluster: str
    namespace: str
    pool: str
    role: Role

    @property
    def selector(self) -> str:
        return self.having()

    def having(self, **labels: str) -> str:
        """Return the selector of those of their series that have these labels too; an empty value: that lack it."""
        wanted = {
            "cluster": self.cluster,
            "namespace": self.namespace,
            "prfaas_pool": self.pool,
            "prfaas_role": self.role,
            **labels,
        }
        return "{" + ",".join(f'{name}="{value}"' for name, value in wanted.items()) + "}"
