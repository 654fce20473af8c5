"""The simulator against a real router and real workers on the same requests."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import httpx
import pytest
import yaml

from prfaas_core import simulation
from prfaas_core.profiles import Curve, Profile
from prfaas_core.routing import Algorithm, Bandwidth
from prfaas_core.simulation import Arrival, DecodePool, Link, PrefillPool, Scenario, traffic

pytestmark = pytest.mark.slow

PROFILES = Path(__file__).resolve().parents[2] / "e2e/manifests/10-profiles.yaml"
LINK_BPS, THRESHOLD, PRICE = 1e10, 12_000, 10.0
SLOWER = 2
OVERHEAD_S = 0.05
"""HTTP, parsing and hashing of long prompts, on a machine that does other things too; the simulator knows no such thing."""


def points(curve: Curve) -> list[dict[str, float]]:
    return [{"tokens": int(tokens), "value": value} for tokens, value in zip(curve.tokens, curve.values, strict=True)]


async def replay(url: str, arrivals: list[Arrival]) -> tuple[list[float], list[str]]:
    """Send the requests when they are due; return the times to first token and where they were prefilled."""
    bodies = [
        json.dumps({"model": "prfaas-1t", "prompt": [(7919 * number + at) % 50_000 for at in range(tokens)],
                    "max_tokens": output, "stream": True})
        for number, (_, tokens, output, _) in enumerate(arrivals)
    ]  # fmt: skip
    loop = asyncio.get_running_loop()
    began_s = loop.time() + 0.2
    async with httpx.AsyncClient(trust_env=False, timeout=60, limits=httpx.Limits(max_connections=200)) as client:

        async def one(body: str, due_s: float) -> tuple[float, str]:
            await asyncio.sleep(began_s + due_s - loop.time())
            sent_s = loop.time()
            first_s = None
            async with client.stream("POST", f"{url}/v1/completions", content=body) as answer:
                assert answer.status_code == 200
                async for _ in answer.aiter_lines():
                    first_s = first_s or loop.time() - sent_s
            assert first_s is not None
            return first_s, answer.headers["x-prfaas-decision"]

        found = await asyncio.gather(*(one(body, row[0]) for body, row in zip(bodies, arrivals, strict=True)))
    return [first_s for first_s, _ in found], [where for _, where in found]


@pytest.mark.parametrize("algorithm", list(Algorithm))
async def test_times_and_shares_agree(
    start_worker: Callable[..., Any],
    start_router: Callable[..., Any],
    snapshot: Callable[..., Any],
    algorithm: Algorithm,
) -> None:
    """Mean and P90 TTFT within 15 % and the overhead, the share sent across within 3 points."""
    fast, slow = [document["spec"] for document in yaml.safe_load_all(PROFILES.read_text())][:2]
    # Slower than the profiles, so that what the machine adds is small beside what is measured.
    h200, h20 = (
        replace(profile, prefill_s=profile.prefill_s.scaled(SLOWER), step_s=profile.step_s * SLOWER)
        for profile in (Profile.from_spec(fast), Profile.from_spec(slow))
    )
    workers = [[start_worker(f"--time-scale={1 / SLOWER}", spec=spec) for _ in range(2)] for spec in (slow, slow, fast)]
    message = snapshot(*workers, policy={"algorithm": algorithm.name, "threshold_tokens": THRESHOLD}, price=PRICE)
    message["limits"]["max_body_bytes"] = 1 << 23
    (entry,) = message["remote_prefill"]
    for pool, profile in ((message["decode"], h20), (message["local_prefill"], h20), (entry["pool"], h200)):
        pool["prefill_seconds"] = points(profile.prefill_s)
    message["decode"]["decode_slots"] = h20.decode_slots
    entry["link"] = {"capacity_bps": LINK_BPS, "share": 1.0, "kv_bytes": points(h200.kv_bytes), "price": 1.0}
    router = start_router(message)

    arrivals = list(traffic.poisson(Random(5), 8.0 / SLOWER, 120, traffic.log_normal(9.2, 0.8, 256, 40_000), 64))
    times, where = await replay(router.url, arrivals)
    # The simulated workers of these processes prefill beside their decoding.
    scenario = Scenario(
        decode=DecodePool("decode", h20, 2, interference=0.0),
        local=PrefillPool("local", h20, 2),
        remote=(PrefillPool("remote", h200, 2, link=Link(LINK_BPS)),),
        threshold_tokens=THRESHOLD,
        bandwidth=Bandwidth.SCARCE,
        algorithm=algorithm,
        absorb=False,
        prices={"decode": PRICE, "local": PRICE, "remote": PRICE},
        link_prices={"remote": 1.0},
    )
    expected = simulation.simulate(scenario, arrivals).summary()
    mean_s, p90_s = sum(times) / len(times), sorted(times)[int(0.9 * len(times))]
    share = where.count("remote_prefill") / len(where)
    assert abs(mean_s - expected.ttft_mean_s) <= 0.15 * expected.ttft_mean_s + OVERHEAD_S
    assert abs(p90_s - expected.ttft_p90_s) <= 0.15 * expected.ttft_p90_s + OVERHEAD_S
    assert share == pytest.approx(expected.remote_share, abs=0.03)
