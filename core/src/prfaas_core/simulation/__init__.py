"""A discrete-event simulator of the whole system, in which routers call the very code of `prfaas_core.routing`.

`simulate(scenario, arrivals)` is a function of its arguments: the same traffic gives the same run, to the last bit.

| module | what |
| --- | --- |
| `scenario` | what is simulated, as values |
| `traffic` | requests as they arrive |
| `control` | what a controller sees and orders |
| `closed_loop` | the operator's loops as a controller: threshold, scarce or abundant, prices, roles |
| `metrics`, `scalers` | what Prometheus reads of a pool, and who decides its size by that |
| `engine`, `disruption`, `steering`, `resizing` | the events |
| `job`, `pool`, `cache`, `link` | the state |
| `results` | what a run shows |
| `bounds` | what no policy can beat |
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from prfaas_core.simulation.disruption import Disruption
from prfaas_core.simulation.engine import Engine
from prfaas_core.simulation.metrics import Metric
from prfaas_core.simulation.resizing import Resizing
from prfaas_core.simulation.results import Result, Summary
from prfaas_core.simulation.scalers import Core, Hpa
from prfaas_core.simulation.scenario import (
    Conversion,
    DecodePool,
    Failure,
    Link,
    LinkChange,
    PrefillPool,
    Scaling,
    Scenario,
)
from prfaas_core.simulation.steering import Steering
from prfaas_core.simulation.traffic import Arrival

__all__ = [
    "Arrival",
    "Conversion",
    "Core",
    "DecodePool",
    "Failure",
    "Hpa",
    "Link",
    "LinkChange",
    "Metric",
    "PrefillPool",
    "Result",
    "Scaling",
    "Scenario",
    "Summary",
    "simulate",
]


def simulate(scenario: Scenario, arrivals: Iterable[Arrival], end_s: float = math.inf) -> Result:
    """Run a scenario until every request is answered, or to `end_s`; requests that are open then have no first token.

    Raises:
        InvalidValueError: arrivals are not in order of time.
    """
    engine = Engine(scenario, arrivals)
    disruption = Disruption(engine)
    resizing = Resizing(engine, disruption)
    if scenario.controller is not None:
        Steering(engine, disruption, scenario.controller)
    engine.run(end_s)
    return _result(engine, resizing)


def _result(engine: Engine, resizing: Resizing) -> Result:
    remote = {name: pool for name, pool in engine.pools.items() if pool.link is not None}
    return Result(
        arrived_s=engine.arrived_s,
        ttft_s=engine.ttft_s,
        itl_s=engine.itl_s,
        tokens=engine.tokens,
        destinations=engine.destinations,
        finished=engine.finished,
        failed=engine.failed,
        ended_s=engine.now_s,
        reasons=dict(engine.reasons),
        link_bytes={name: pool.delivered_bytes for name, pool in remote.items()},
        link_taken_bytes={name: pool.taken_bytes for name, pool in remote.items()},
        link_cost=sum(
            pool.delivered_bytes / 1e9 * pool.link.spec.cost_per_gb for pool in remote.values() if pool.link is not None
        ),
        history=tuple(engine.history),
        replica_s=resizing.replica_s(),
    )
