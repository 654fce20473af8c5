"""The PromQL that the operator asks.

Engines count for themselves, pod by pod. Rates come before sums, so that the restart of one pod does not look like a fall of
all; what is a total over a window looks at samples of that window only, so that a pod that is gone drops out of it.
"""

from prfaas_operator.scaling.queries.workers import Workers

__all__ = ["Workers"]
