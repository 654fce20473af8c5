"""The bodies of the two legs of a prefill handover, in vLLM's NIXL contract. Pure.

Pull: prefill answers with `kv_transfer_params`, which decode gets as they are, but for the address translation.
Push: both legs go out at once; decode is told beforehand where the KV will come from.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prfaas_router.configuration import Endpoint

_DROPPED_FOR_PREFILL = ("stream_options", "min_tokens", "min_completion_tokens")


def prefill_body(body: Mapping[str, Any], *, push: bool) -> dict[str, Any]:
    """Return the body for the prefill leg: the client's, cut down to computing the prompt."""
    leg = {key: value for key, value in body.items() if key not in _DROPPED_FOR_PREFILL}
    leg["max_tokens"] = 1
    if "max_completion_tokens" in body:
        leg["max_completion_tokens"] = 1
    leg["stream"] = False
    leg["kv_transfer_params"] = {
        "do_remote_decode": True,
        "do_remote_prefill": False,
        "remote_engine_id": None,
        "remote_block_ids": None,
        "remote_host": None,
        "remote_port": None,
    }
    if push:
        leg["kv_transfer_params"]["transfer_mode"] = "push"
    return leg


def offered(answer: Mapping[str, Any], endpoint: Endpoint) -> dict[str, Any] | None:
    """Return the transfer parameters of a prefill answer as decode should see them; None when there are none."""
    params = answer.get("kv_transfer_params")
    if not isinstance(params, dict) or params.get("do_remote_prefill") is not True:
        return None
    if endpoint.kv_address_seen and params.get("remote_host") == endpoint.kv_address_own:
        # The engine advertises its own address, which decode reaches under another one.
        params = params | {"remote_host": endpoint.kv_address_seen}
    return params


def announced(endpoint: Endpoint, request_id: str) -> dict[str, Any]:
    """Return what decode is told of a push that is on its way."""
    return {
        "do_remote_decode": False,
        "do_remote_prefill": True,
        "remote_engine_id": endpoint.engine_id,
        "remote_host": endpoint.kv_address_seen or endpoint.kv_address_own or endpoint.address[0],
        "remote_port": endpoint.kv_port,
        "tp_size": 1,
        "pp_size": 1,
        "remote_request_id": request_id,
    }


def decode_body(body: Mapping[str, Any], params: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the body for the decode leg; without parameters the decode worker prefills by itself."""
    return dict(body) if params is None else {**body, "kv_transfer_params": params}
