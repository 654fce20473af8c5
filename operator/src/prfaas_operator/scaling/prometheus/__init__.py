"""Questions to Prometheus, and to whatever speaks its API: Thanos, Mimir, VictoriaMetrics.

Queries go through prometheus-api-client's `PrometheusConnect`, which is wrapped in four places:

- It blocks. Each server has threads of its own (`client`), so that one that hangs holds up neither the event loop nor the
  questions to others, and one deadline for the whole of a question, the wait for a thread included.
- `requests` limits single reads only, so that an answer that trickles in lasts for ever. The session that it is given
  (`session`) can be cut off from outside, reads no more than it has to, follows no redirect, verifies certificates
  against the authority that is configured and no other, and sends queries in the body, because its own POST leaves them in the
  URL, which proxies cut at 8 kB.
- It raises the same exception for every status. The session tells failures apart, each with a reason of its own.
- It hands on nothing of an answer but the samples, so what they cannot show (warnings, the kind of result) is read off
  their shape (`results`), and the server's clock off their time.
"""

from prfaas_operator.scaling.prometheus.client import Prometheus
from prfaas_operator.scaling.prometheus.results import Element, Fault, Sample, Series, Vector
from prfaas_operator.scaling.prometheus.servers import Servers

__all__ = ["Element", "Fault", "Prometheus", "Sample", "Series", "Servers", "Vector"]
