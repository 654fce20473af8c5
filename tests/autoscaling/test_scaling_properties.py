"""What holds for every history of looks, whatever the signals, the settings and the pods do: 1,000 random histories a run."""

import itertools
import math
from dataclasses import dataclass, replace

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prfaas_core.autoscaling import (
    FAULTS,
    Ceiling,
    Floor,
    History,
    Observed,
    Panic,
    Policy,
    PolicyType,
    Reading,
    Rules,
    ScalingReason,
    SelectPolicy,
    Settings,
    TargetType,
    decide,
)

WINDOW_S = 30.0


def histories(count):
    return settings(max_examples=count, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@dataclass(frozen=True)
class Look:
    """What happens at one look: how much later it is, what the signals say, and what the pods do."""

    after_s: float
    work: float
    ratio: float
    burst: float
    guard: float
    late_pods: int
    faults: tuple[bool, bool, bool]
    kind: int
    demand: float | None

    def readings(self, louder=1.0, more=0.0):
        unusable = UNUSABLE[self.kind]
        found = (
            Reading("Work", 0.5, TargetType.AVERAGE_VALUE, self.work * louder + more, panic_value=self.burst * louder, work=True),
            Reading(
                "Wait", 2.0, TargetType.VALUE, 2.0 * self.ratio * louder + more, window_s=WINDOW_S, proportional=self.kind % 2 == 0
            ),
            Reading("Kept", 0.5, TargetType.AVERAGE_VALUE, self.guard * louder + more, guard=True),
        )  # fmt: skip
        return tuple(unusable(reading) if fault else reading for reading, fault in zip(found, self.faults, strict=True))


UNUSABLE = (
    lambda reading: replace(reading, value=None),
    lambda reading: replace(reading, value=math.nan),
    lambda reading: replace(reading, value=math.inf),
    lambda reading: replace(reading, value=-1.0),
    lambda reading: replace(reading, age_s=1e4),
    lambda reading: replace(reading, age_s=-5.0),
    lambda reading: replace(reading, value=None, fault=ScalingReason.PROMETHEUS_TIMEOUT),
)

POLICIES = st.lists(
    st.builds(
        Policy,
        st.sampled_from(PolicyType),
        st.sampled_from((1, 2, 4, 50, 100)),
        st.sampled_from((5.0, 15.0, 60.0)),
    ),
    max_size=2,
).map(tuple)
RULES = st.builds(
    Rules,
    st.sampled_from((0.0, 30.0, 300.0)),
    st.sampled_from((0.0, 0.1, 0.5)),
    st.sampled_from(SelectPolicy),
    POLICIES,
)


@st.composite
def all_settings(draw, least=0):
    minimum = draw(st.integers(least, 3))
    return Settings(
        minimum,
        draw(st.integers(max(minimum, 1), 40)),
        draw(RULES),
        draw(RULES),
        panic=draw(st.sampled_from((None, Panic(10.0, 2.0, 30.0)))),
        startup_s=draw(st.sampled_from((0.0, 20.0, 120.0))),
        idle_cool_down_s=draw(st.sampled_from((0.0, 30.0))),
    )


NO_FAULTS = st.just((False, False, False))
SOME_FAULTS = st.tuples(st.booleans(), st.booleans(), st.booleans())
REPLICAS = st.sampled_from((0, 1, 2, 3, 5, 11, 40))


def looks(faults=NO_FAULTS, size=14):
    load = st.sampled_from((0.0, 0.1, 0.4, 0.9, 1.0, 1.1, 2.0, 3.3, 8.0, 25.0))
    look = st.builds(
        Look,
        st.sampled_from((1.0, 5.0, 14.0, 15.0, 40.0, 400.0)),
        load,
        load,
        load,
        load,
        st.integers(0, 3),
        faults,
        st.integers(0, len(UNUSABLE) - 1),
        st.sampled_from((0.0, 0.0, 1.0, None)),
    )
    return st.lists(look, min_size=1, max_size=size)


FLOORS = st.lists(
    st.builds(Floor, st.sampled_from((0, 1, 2, 9, 50)), st.just(ScalingReason.SCHEDULED_FLOOR)), max_size=2
).map(tuple)
CEILINGS = st.lists(
    st.builds(Ceiling, st.sampled_from((0, 1, 2, 9, 50)), st.just(ScalingReason.LINK_CEILING), hard=st.booleans()),
    max_size=2,
).map(tuple)


class Pool:
    """A pool that does what is decided; some of its newest pods are late."""

    def __init__(self, settings_, replicas):
        self.settings, self.replicas, self.history, self.now_s = settings_, replicas, History(), 0.0

    def observe(self, look, louder=1.0, more=0.0, **changes):
        self.now_s += look.after_s
        ready = max(0, self.replicas - look.late_pods)
        return Observed(self.replicas, ready, look.readings(louder, more), demand=look.demand, **changes)

    def decide(self, observed):
        return decide(observed, self.settings, self.history, self.now_s)

    def follow(self, decision):
        self.replicas, self.history = decision.replicas, decision.history


@histories(200)
@given(all_settings(), REPLICAS, looks(SOME_FAULTS), FLOORS, CEILINGS)
def test_bounds_are_never_broken(settings_, replicas, steps, floors, ceilings):
    pool = Pool(settings_, replicas)
    for look in steps:
        decision = pool.decide(pool.observe(look, floors=floors, ceilings=ceilings))
        assert settings_.min_replicas <= decision.replicas <= settings_.max_replicas
        assert decision.next_look_s > pool.now_s
        pool.follow(decision)


def allowed(trajectory, rules, now_s, *, up):
    """Return how far policies let a pool go, from what it had when each policy's period began."""
    if rules.select is SelectPolicy.DISABLED:
        return trajectory[-1][1]
    limits = []
    for policy in rules.policies:
        # The period is open at its beginning: what changed exactly then lies before it.
        start = [replicas for at_s, replicas in trajectory if at_s <= now_s - policy.period_s]
        before = start[-1] if start else trajectory[0][1]
        step = policy.value if policy.type is PolicyType.PODS else before * policy.value / 100
        limits.append(math.ceil(before + step) if up else math.floor(before - step))
    if not limits:
        return math.inf if up else -math.inf
    widest = rules.select is SelectPolicy.MAX
    return (max if widest is up else min)(limits)


@histories(250)
@given(all_settings(), REPLICAS, looks(SOME_FAULTS, size=25))
def test_rates_are_never_broken_over_any_period_of_any_policy(settings_, replicas, steps):
    replicas = min(max(replicas, settings_.min_replicas), settings_.max_replicas)
    pool = Pool(settings_, replicas)
    trajectory = [(0.0, replicas)]
    for look in steps:
        before = pool.replicas
        decision = pool.decide(pool.observe(look))
        pool.follow(decision)
        if decision.replicas > before:
            # The first worker after none is not a matter of rates: nothing else would answer.
            assert decision.replicas <= max(allowed(trajectory, settings_.up, pool.now_s, up=True), before == 0)
        if decision.replicas < before:
            assert decision.replicas >= allowed(trajectory, settings_.down, pool.now_s, up=False)
        trajectory.append((pool.now_s, decision.replicas))


@histories(200)
@given(
    all_settings(),
    REPLICAS,
    looks(),
    st.sampled_from((1.0, 1.05, 2.0, 10.0)),
    st.sampled_from((0.0, 0.3, 5.0)),
)
def test_more_load_never_means_fewer_replicas(settings_, replicas, steps, louder, more):
    pool = Pool(settings_, replicas)
    for look in steps[:-1]:
        pool.follow(pool.decide(pool.observe(look)))
    last = replace(steps[-1], after_s=0.0)
    quiet = pool.decide(pool.observe(last))
    loud = pool.decide(pool.observe(last, louder, more))
    assert loud.replicas >= quiet.replicas


@histories(150)
@given(all_settings(), REPLICAS, looks(SOME_FAULTS), FLOORS, CEILINGS)
def test_deciding_again_changes_nothing(settings_, replicas, steps, floors, ceilings):
    pool = Pool(settings_, replicas)
    for look in steps:
        observed = pool.observe(look, floors=floors, ceilings=ceilings)
        decision = pool.decide(observed)
        assert pool.decide(observed) == decision
        pool.follow(decision)
        again = pool.decide(replace(observed, replicas=decision.replicas))
        assert again.replicas == decision.replicas


@histories(120)
@given(all_settings(least=1), REPLICAS, looks(SOME_FAULTS, size=10), st.booleans())
def test_missing_data_decides_nothing(settings_, replicas, steps, everything):
    replicas = min(max(replicas, settings_.min_replicas), settings_.max_replicas)
    pool = Pool(settings_, replicas)
    for look in steps:
        seen = replace(look, faults=(True, True, True) if everything else look.faults)
        before = pool.replicas
        observed = pool.observe(seen)
        decision = pool.decide(observed)
        if any(seen.faults):
            assert decision.replicas >= before
        if seen.faults[0] and seen.faults[1]:
            assert decision.replicas == before
            # Without a ready pod there is nobody who could report, and that is known.
            waits = observed.ready_replicas == 0 and decision.wanted == before
            assert waits or (decision.reason in FAULTS and decision.wanted is None)
        pool.follow(decision)


@histories(120)
@given(all_settings(), REPLICAS, looks(SOME_FAULTS), FLOORS, CEILINGS, FLOORS, CEILINGS)
def test_floors_only_raise_and_ceilings_only_lower(settings_, replicas, steps, floors, ceilings, more, fewer):
    pool = Pool(settings_, replicas)
    for look in steps[:-1]:
        pool.follow(pool.decide(pool.observe(look, floors=floors, ceilings=ceilings)))
    observed = pool.observe(steps[-1], floors=floors, ceilings=ceilings)
    plain = pool.decide(observed).replicas
    assert pool.decide(replace(observed, floors=(*floors, *more))).replicas >= plain
    assert pool.decide(replace(observed, ceilings=(*ceilings, *fewer))).replicas <= plain


@histories(80)
@given(all_settings(least=1), REPLICAS, looks(SOME_FAULTS, size=60))
def test_no_pool_turns_round_more_than_three_times_in_any_hour(settings_, replicas, steps):
    pool = Pool(settings_, min(max(replicas, settings_.min_replicas), settings_.max_replicas))
    changes = []
    for look in steps:
        before = pool.replicas
        # With nothing to do a pool shrinks in any case.
        pool.follow(pool.decide(pool.observe(replace(look, work=max(look.work, 0.05)))))
        if pool.replicas != before:
            changes.append((pool.now_s, pool.replicas > before))
    turns = [at_s for (_, grew), (at_s, grows) in itertools.pairwise(changes) if grew != grows]
    assert all(sum(1 for other in turns if at_s <= other < at_s + 3600) <= 3 for at_s in turns)


@histories(50)
@given(all_settings(least=1), REPLICAS, looks(size=8), st.sampled_from((0.05, 0.35, 1.45, 6.2)))
def test_a_steady_load_is_settled_without_turning_back(settings_, replicas, steps, work):
    """Once the load stays what it is, replicas go one way and stop."""
    replicas = min(max(replicas, settings_.min_replicas), settings_.max_replicas)
    # A burst that is over is no steady load.
    pool = Pool(replace(settings_, panic=None), replicas)
    for look in steps:
        pool.follow(pool.decide(pool.observe(look)))
    steady = Look(15.0, work, 1.0, 0.0, work, 0, (False, False, False), 0, 0.0)
    path = [pool.replicas]
    for _ in range(60):
        observed = pool.observe(steady)
        pool.follow(pool.decide(replace(observed, readings=observed.readings[:1])))
        path.append(pool.replicas)
    turns = [after - before for before, after in itertools.pairwise(path) if after != before]
    assert all(turn > 0 for turn in turns) or all(turn < 0 for turn in turns), path
