"""gRPC `Decide`: the router's decision for gateways that forward by themselves."""

from __future__ import annotations

from typing import Any

import grpc
import grpc.aio

from prfaas_core.routing import Destination, NoDecodeWorkerError
from prfaas_protocol import decision_pb2 as pb
from prfaas_protocol import decision_pb2_grpc as rpc
from prfaas_router.app import Router
from prfaas_router.configuration import Pool
from prfaas_router.metrics import Metrics
from prfaas_router.openai import APIError

_DESTINATIONS = {
    Destination.DECODE: pb.DecideResponse.DECODE,
    Destination.LOCAL_PREFILL: pb.DecideResponse.LOCAL_PREFILL,
    Destination.REMOTE_PREFILL: pb.DecideResponse.REMOTE_PREFILL,
}
_CODES = {404: grpc.StatusCode.NOT_FOUND, 503: grpc.StatusCode.UNAVAILABLE}


class DecideService(rpc.RouterServicer):
    """Answers with the same code and state as the data path."""

    def __init__(self, router: Router, metrics: Metrics) -> None:
        self._router = router
        self._metrics = metrics

    async def Decide(  # noqa: N802 - the name of the method in the .proto
        self, request: pb.DecideRequest, context: grpc.aio.ServicerContext[pb.DecideRequest, pb.DecideResponse]
    ) -> pb.DecideResponse:
        """Return where the prefill of one request runs."""
        body: dict[str, Any] = {"model": request.model}
        which = request.WhichOneof("prompt")
        if which == "token_ids":
            body["prompt"] = list(request.token_ids.ids)
        elif which == "text":
            body["prompt"] = request.text
        body |= {"n": request.n} if request.n else {}
        body |= {"echo": True} if request.echo else {}
        body |= {"prompt_logprobs": 1} if request.prompt_logprobs else {}
        body |= {"max_tokens": request.max_output_tokens} if request.max_output_tokens else {}
        try:
            admission = await self._router.gate.admit(body, chat=False)
            decision = self._router.decide(admission)
        except APIError as error:
            await context.abort(_CODES.get(error.status, grpc.StatusCode.INVALID_ARGUMENT), error.message)
        except NoDecodeWorkerError as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
        configuration, prepared = admission.configuration, admission.prepared
        self._metrics.request(decision.destination, decision.reason, "decided")
        prefill = None
        if decision.prefill_pool is not None and decision.prefill_worker is not None:
            pool = next(pool for pool in configuration.pools() if pool.name == decision.prefill_pool)
            prefill = _worker(pool, decision.prefill_worker)
        return pb.DecideResponse(
            destination=_DESTINATIONS[decision.destination],
            reason=decision.reason,
            prefill=prefill,
            decode=_worker(configuration.decode, decision.decode_worker),
            prompt_tokens=prepared.total_tokens,
            prompt_tokens_estimated=prepared.estimated,
            cached_tokens=min(decision.cached_tokens, prepared.total_tokens),
            threshold_tokens=configuration.threshold_tokens,
            configuration_version=configuration.version,
        )


def _worker(pool: Pool, name: str) -> pb.Worker:
    host, port = pool.endpoints[name].address
    return pb.Worker(pool=pool.name, cluster=pool.cluster, name=name, address=f"{host}:{port}")
