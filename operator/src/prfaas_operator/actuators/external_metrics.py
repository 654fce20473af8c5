"""The API `external.metrics.k8s.io/v1beta1`, which HorizontalPodAutoscalers read, as an aggregated API of the hub.

A cluster has one server of this API. Errors are Status objects, as of any Kubernetes API, and a HorizontalPodAutoscaler that
meets one holds its number and shows the message in its condition ScalingActive.
"""

from datetime import UTC, datetime, timedelta
from typing import Any, Final

from aiohttp import web

from prfaas_operator.actuators import selectors
from prfaas_operator.actuators.front_proxy import FrontProxy, NotFrontProxyError
from prfaas_operator.actuators.pool_metrics import METRICS, PoolMetrics, Total, Unknown
from prfaas_operator.actuators.quantities import quantity
from prfaas_operator.objects import Ref

GROUP: Final = "external.metrics.k8s.io"
VERSION: Final = "v1beta1"
_GROUP_VERSION: Final = f"{GROUP}/{VERSION}"
_REASONS: Final = {
    400: "BadRequest", 401: "Unauthorized", 404: "NotFound", 405: "MethodNotAllowed", 500: "InternalError",
    503: "ServiceUnavailable",
}  # fmt: skip


class StatusError(Exception):
    """A request that gets a Status object instead of what it asked for."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def application(metrics: PoolMetrics, front_proxy: FrontProxy) -> web.Application:
    """Return the API as a web application; TLS has verified the client's certificate, if it gave one."""

    @web.middleware
    async def guard(request: web.Request, handler: Any) -> web.StreamResponse:
        try:
            certificate = request.transport.get_extra_info("peercert") if request.transport is not None else None
            front_proxy.user(certificate, request.headers)
            response: web.StreamResponse = await handler(request)
        except NotFrontProxyError as error:
            return _status(401, str(error))
        except StatusError as error:
            return _status(error.code, error.message)
        except web.HTTPException as error:
            return _status(error.status, f"{request.method} {request.path}: {error.reason}")
        return response

    async def group(_: web.Request) -> web.Response:
        version = {"groupVersion": _GROUP_VERSION, "version": VERSION}
        return web.json_response(
            {"kind": "APIGroup", "apiVersion": "v1", "name": GROUP, "versions": [version], "preferredVersion": version}
        )

    async def resources(_: web.Request) -> web.Response:
        return web.json_response(
            {
                "kind": "APIResourceList",
                "apiVersion": "v1",
                "groupVersion": _GROUP_VERSION,
                "resources": [
                    {"name": name, "singularName": "", "namespaced": True, "kind": "ExternalMetricValueList", "verbs": ["get"]}
                    for name in METRICS
                ],
            }
        )  # fmt: skip

    async def values(request: web.Request) -> web.Response:
        return web.json_response(
            {
                "kind": "ExternalMetricValueList",
                "apiVersion": _GROUP_VERSION,
                "metadata": {},
                "items": await listed(
                    metrics,
                    request.match_info["namespace"],
                    request.match_info["metric"],
                    request.query.get("labelSelector", ""),
                ),
            }
        )

    found = web.Application(middlewares=[guard])
    found.add_routes(
        [
            web.get(f"/apis/{GROUP}", group),
            web.get(f"/apis/{_GROUP_VERSION}", resources),
            web.get(f"/apis/{_GROUP_VERSION}/namespaces/{{namespace}}/{{metric}}", values),
        ]
    )
    return found


async def listed(metrics: PoolMetrics, namespace: str, name: str, selector: str) -> list[dict[str, Any]]:
    """Return the values of a metric for the pools of a namespace that a label selector selects.

    Raises:
        StatusError: there is no such metric or pool, or one of the pools has no value: whoever adds up the others would take
            the sum for all.
    """
    metric = METRICS.get(name)
    if metric is None:
        raise StatusError(404, f"no metric {name}; there are {', '.join(METRICS)}")
    try:
        requirements = selectors.parse(selector)
    except selectors.SelectorError as error:
        raise StatusError(400, str(error)) from error
    chosen = {
        pool: labels
        for pool, labels in metrics.pools(namespace, metric.kinds).items()
        if selectors.matches(requirements, labels)
    }
    if not chosen:
        kinds = " or ".join(metric.kinds)
        raise StatusError(
            404, f"{name}: no {kinds} in namespace {namespace} has the labels {selector or '(any)'}; give pool=NAME"
        )
    return [_item(name, pool, labels, await metrics.read(pool, metric)) for pool, labels in chosen.items()]


def _item(name: str, pool: Ref, labels: dict[str, str], found: Total | Unknown) -> dict[str, Any]:
    if isinstance(found, Unknown):
        raise StatusError(503, f"{name} of {pool.kind} {pool.name}: {found.reason}: {found.message}")
    at = datetime.now(UTC) - timedelta(seconds=found.age_s)
    item = {
        "metricName": name,
        "metricLabels": labels,
        "timestamp": at.isoformat(timespec="seconds").replace("+00:00", "Z"),
        "value": quantity(found.value),
    }
    return item if found.window_s is None else {**item, "window": found.window_s}


def _status(code: int, message: str) -> web.Response:
    body = {
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message,
        "reason": _REASONS.get(code, ""), "code": code,
    }  # fmt: skip
    return web.json_response(body, status=code)
