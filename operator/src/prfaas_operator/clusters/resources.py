"""The kinds of objects that the operator reads and writes, and their paths in the API."""

from dataclasses import dataclass

from prfaas_operator import api


@dataclass(frozen=True, slots=True)
class Resource:
    """One kind of the Kubernetes API."""

    group: str  # empty for the core group
    version: str
    kind: str
    plural: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str | None = None) -> str:
        """Return the URL path of the collection, or of one object or subresource of it."""
        parts = ["/apis", self.group, self.version] if self.group else ["/api", self.version]
        if self.namespaced and namespace is not None:
            parts += ["namespaces", namespace]
        parts.append(self.plural)
        if name is not None:
            parts.append(name)
        if subresource is not None:
            parts.append(subresource)
        return "/".join(parts)


NAMESPACE = Resource("", "v1", "Namespace", "namespaces", namespaced=False)
CONFIG_MAP = Resource("", "v1", "ConfigMap", "configmaps")
SECRET = Resource("", "v1", "Secret", "secrets")
SERVICE = Resource("", "v1", "Service", "services")
SERVICE_ACCOUNT = Resource("", "v1", "ServiceAccount", "serviceaccounts")
POD = Resource("", "v1", "Pod", "pods")
EVENT = Resource("", "v1", "Event", "events")
DEPLOYMENT = Resource("apps", "v1", "Deployment", "deployments")
DISRUPTION_BUDGET = Resource("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets")
LEASE = Resource("coordination.k8s.io", "v1", "Lease", "leases")
HORIZONTAL_POD_AUTOSCALER = Resource("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers")
TOKEN_REVIEW = Resource("authentication.k8s.io", "v1", "TokenReview", "tokenreviews", namespaced=False)


def _own(model: type[api.Resource]) -> Resource:
    return Resource(api.GROUP, api.VERSION, model.__name__, model.definition.plural)


MEMBER_CLUSTER = _own(api.MemberCluster)
MODEL_PROFILE = _own(api.ModelProfile)
PREFILL_POOL = _own(api.PrefillPool)
DECODE_POOL = _own(api.DecodePool)
KV_LINK = _own(api.KVLink)
INFERENCE_ROUTE = _own(api.InferenceRoute)
BUDGET = _own(api.Budget)

# What the operator owns in the hub's API group; members know nothing of it.
OWN = (MEMBER_CLUSTER, MODEL_PROFILE, PREFILL_POOL, DECODE_POOL, KV_LINK, INFERENCE_ROUTE, BUDGET)
# What the operator writes into a member's namespace.
CHILDREN = (SERVICE_ACCOUNT, CONFIG_MAP, SERVICE, DISRUPTION_BUDGET, DEPLOYMENT)
# What the operator watches there.
WATCHED = (*CHILDREN, POD)

BY_KIND = {resource.kind: resource for resource in (*OWN, *WATCHED)}
