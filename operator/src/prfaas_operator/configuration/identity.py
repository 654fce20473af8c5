"""Who is at the other end of a router's stream.

A router shows the ServiceAccount token of its pod. The API server of the member cluster that it claims to run in says whose
token that is, and for which audience; the route says whose it must be.
"""

from dataclasses import dataclass

from prfaas_operator import api
from prfaas_operator.api.inference_route import Placement
from prfaas_operator.children.deployment import service_account
from prfaas_operator.children.router import TOKEN_AUDIENCE, router_name
from prfaas_operator.clusters.api import ClusterApi
from prfaas_operator.clusters.resources import TOKEN_REVIEW


@dataclass(frozen=True, slots=True)
class Expected:
    """Where a route's routers run, and as whom."""

    cluster: str
    user: str


class NotAuthenticError(Exception):
    """A token is not valid in the cluster that it was shown for."""


def expected(namespace: str, route: api.InferenceRoute, decode: api.DecodePool) -> Expected:
    """Return the identity of a route's routers."""
    if route.spec.router.placement is Placement.SIDECAR:
        account = service_account(decode.spec.template.as_object(), decode.metadata.name)
    else:
        account = router_name(route.metadata.name)
    return Expected(decode.spec.cluster_ref.name, f"system:serviceaccount:{namespace}:{account}")


async def review(member: ClusterApi, token: str) -> str:
    """Return the user that a token belongs to.

    Raises `NotAuthenticError` when the cluster does not accept it for routers, `ApiError` when the cluster does not answer.
    """
    body = {
        "apiVersion": TOKEN_REVIEW.api_version,
        "kind": TOKEN_REVIEW.kind,
        "spec": {"token": token, "audiences": [TOKEN_AUDIENCE]},
    }
    status = (await member.review_token(TOKEN_REVIEW, body)).get("status") or {}
    if not status.get("authenticated") or TOKEN_AUDIENCE not in (status.get("audiences") or ()):
        raise NotAuthenticError(status.get("error") or f"the token is not valid for the audience {TOKEN_AUDIENCE}")
    return str((status.get("user") or {}).get("username", ""))
