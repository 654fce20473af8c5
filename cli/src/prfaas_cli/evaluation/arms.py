"""By what it is decided: policies and ablations, each as it would run with its loop."""

from __future__ import annotations

from dataclasses import dataclass, replace

from prfaas_cli.evaluation.scenarios import COST_PER_GB, Scenario
from prfaas_core import case_study, planner, routing, simulation
from prfaas_core.profiles import Profile
from prfaas_core.routing import Algorithm, baselines, prices
from prfaas_core.simulation import DecodePool, Link, PrefillPool
from prfaas_core.simulation.closed_loop import ClosedLoop

STATE_TOKENS = 10_500
"""172 MiB of recurrent state, in tokens of full-attention KV."""


@dataclass(frozen=True, slots=True)
class Arm:
    """One way to decide.

    Attributes:
        loop: whether the threshold is searched again, every 10 s.
        priced: whether prices follow what is measured; else they are 0.
        roles: whether roles are converted, looked at every 120 s.
    """

    name: str
    algorithm: Algorithm = Algorithm.PAPER
    policy: routing.Policy = routing.decide
    loop: bool = True
    priced: bool = True
    absorb: bool = True
    roles: bool = False


PAPER, FINISH_TIME = "paper", "finish_time"
ARMS: tuple[Arm, ...] = (
    Arm("paper, static", loop=False),
    Arm(PAPER),
    Arm(FINISH_TIME, Algorithm.FINISH_TIME),
    Arm("finish_time, no absorption", Algorithm.FINISH_TIME, absorb=False),
    Arm("finish_time, no prices", Algorithm.FINISH_TIME, priced=False),
    Arm("finish_time, static threshold", Algorithm.FINISH_TIME, loop=False),
    Arm("paper, roles", roles=True),
    Arm("finish_time, roles", Algorithm.FINISH_TIME, roles=True),
    Arm("least loaded", policy=baselines.least_loaded, loop=False),
    Arm("always remote", policy=baselines.always_remote, loop=False),
    Arm("never remote", policy=baselines.never_remote, loop=False),
    Arm("llm-d, 8K", policy=baselines.StaticThreshold(8192), loop=False),
    Arm("Dynamo isl_bounding, 2K and 0.5", policy=baselines.EffectiveLength(2048, 0.5), loop=False),
)


def build(scenario: Scenario, arm: Arm) -> simulation.Scenario:
    """Return a scenario as it is simulated by an arm."""
    h20, h200 = (_cached(profile, scenario.cache_tokens) for profile in (case_study.H20, case_study.H200))
    names = tuple(f"remote-{index + 1}" for index in range(len(scenario.remote)))
    remote = tuple(
        PrefillPool(name, h200, workers, Link(bps, 0.01, scenario.changes if index == 0 else (), COST_PER_GB))
        for index, (name, workers, bps) in enumerate(zip(names, scenario.remote, scenario.link_bps, strict=True))
    )
    deployment = replace(
        case_study.PRFAAS,
        local_instances=scenario.local,
        decode_instances=scenario.decode,
        remote_instances=sum(scenario.remote),
        link_bps=sum(scenario.link_bps),
    )
    plan = planner.best_threshold(deployment, case_study.LENGTHS)
    controller = ClosedLoop(
        deployment,
        decode="decode",
        local="local",
        remote=names,
        plan=arm.loop,
        priced=arm.priced,
        roles_period_s=120.0 if arm.roles else float("inf"),
    )
    guess = {"decode": 2.0, "local": 2.0, **dict.fromkeys(names, prices.prior(2.2))} if arm.priced else {}
    nothing = {"decode": 0.0, "local": 0.0, **dict.fromkeys(names, 0.0)}
    return simulation.Scenario(
        decode=DecodePool("decode", h20, scenario.decode),
        local=PrefillPool("local", h20, scenario.local),
        remote=remote,
        policy=arm.policy,
        threshold_tokens=plan.threshold_tokens,
        algorithm=arm.algorithm,
        absorb=arm.absorb,
        hybrid=scenario.cache_tokens > 0,
        state_tokens=STATE_TOKENS,
        prices=guess or nothing,
        link_prices=dict.fromkeys(names, 1.0 if arm.priced else 0.0),
        controller=controller,
        control_period_s=10.0,
        failures=scenario.failures,
    )


def _cached(profile: Profile, tokens: int) -> Profile:
    return replace(profile, cache_capacity_tokens=tokens)
