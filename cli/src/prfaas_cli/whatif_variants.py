"""Changes of a deployment and its traffic to ask about: from the text of an option to what is simulated instead."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from prfaas_cli import scenario
from prfaas_cli.scenario import Setup
from prfaas_cli.scenario_traffic import Traffic
from prfaas_core import errors, routing
from prfaas_core.routing import Algorithm, Mode, baselines

_ALGORITHMS = {"paper": Algorithm.PAPER, "finish_time": Algorithm.FINISH_TIME}
_BASELINES: Mapping[str, routing.Policy] = {
    "always_remote": baselines.always_remote,
    "never_remote": baselines.never_remote,
    "least_loaded": baselines.least_loaded,
}
POLICIES = (*_ALGORITHMS, *_BASELINES)
_MODES = {"Enforce": Mode.ENFORCE, "Shadow": Mode.SHADOW, "LocalOnly": Mode.LOCAL_ONLY}
MODES = tuple(_MODES)
_MOST_WORKERS = 10_000


@dataclass(frozen=True, slots=True)
class Case:
    """What is simulated."""

    setup: Setup
    traffic: Traffic


@dataclass(frozen=True, slots=True)
class Variant:
    """A case with a name, such as `threshold 8000`, and what it says something about, such as `--threshold`."""

    name: str
    case: Case
    about: str = ""


Change = Callable[[Case], Variant]


def variants(base: Case, changes: Iterable[Change], *, together: bool = False) -> Iterator[Variant]:
    """Yield the base with each change by itself, and if asked with all of them.

    Raises:
        InvalidValueError: a change names something that is not there, or a value that cannot be.
    """
    changes = tuple(changes)
    for change in changes:
        yield change(base)
    if together and len(changes) > 1:
        names: dict[str, str] = {}
        case = base
        for change in changes:
            changed = change(case)
            if changed.about in names:
                raise errors.InvalidValueError(
                    "--together", f"{names[changed.about]}, {changed.name}", f"give {changed.about} once with it"
                )
            names[changed.about] = changed.name
            case = changed.case
        yield Variant(" and ".join(names.values()), case)


def threshold(text: str) -> Change:
    """Return the change to a threshold: a number of tokens, or `Auto`."""
    if text != scenario.AUTO and not (text.isascii() and text.isdigit() and int(text) < 2**31):
        raise errors.InvalidValueError("--threshold", text, "give a whole number of tokens from 0, or Auto")
    value = text if text == scenario.AUTO else int(text)
    return lambda case: Variant(
        f"threshold {text}", replace(case, setup=replace(case.setup, threshold=value)), "--threshold"
    )


def link(text: str) -> Change:
    """Return the change of a KVLink's capacity, given as NAME=GBPS."""
    name, number = _pair("--link", text, "NAME=GBPS")
    capacity_bps = _number("--link", text, number) * 1e9

    def change(case: Case) -> Variant:
        for pool in case.setup.remote:
            if pool.line is not None and pool.line.name == name:
                changed = replace(pool.line, capacity_bps=capacity_bps)
                return Variant(
                    f"link {name} {number} Gbit/s",
                    replace(case, setup=scenario.with_line(case.setup, changed)),
                    f"--link {name}",
                )
        known = [pool.line.name for pool in case.setup.remote if pool.line is not None]
        raise _unknown("--link", name, "KVLink", known)

    return change


def replicas(text: str) -> Change:
    """Return the change of a pool's workers, given as POOL=N."""
    name, workers = pool_workers("--replicas", text)

    def change(case: Case) -> Variant:
        for pool in case.setup.pools():
            if pool.name == name:
                if pool is case.setup.decode and workers == 0:
                    raise errors.InvalidValueError("--replicas", text, "a decode pool needs at least 1")
                changed = replace(pool, workers=workers)
                return Variant(
                    f"{name} {workers} workers",
                    replace(case, setup=scenario.with_pool(case.setup, changed)),
                    f"--link {name}",
                )
        raise _unknown("--replicas", name, "pool", [pool.name for pool in case.setup.pools()])

    return change


def add_pool(text: str) -> Change:
    """Return one remote pool more, given as NAME=LIKE; its link is a new one like that of the pool that it is like."""
    name, like = _pair("--add-pool", text, "NAME=LIKE, LIKE being a remote pool")

    def change(case: Case) -> Variant:
        setup = case.setup
        if name in {pool.name for pool in setup.pools()}:
            raise errors.InvalidValueError(
                "--add-pool", text, f"{name} is there already; give the new pool another name"
            )
        for pool in setup.remote:
            if pool.name == like and pool.line is not None:
                line = replace(pool.line, name=f"{pool.line.name}-{name}")
                added = replace(pool, name=name, line=line)
                return Variant(
                    f"pool {name} like {like}",
                    replace(case, setup=replace(setup, remote=(*setup.remote, added))),
                    f"--add-pool {name}",
                )
        raise _unknown("--add-pool", like, "remote pool", [pool.name for pool in setup.remote])

    return change


def policy(name: str) -> Change:
    """Return the change to a policy of `POLICIES`."""
    if name not in POLICIES:
        raise errors.InvalidValueError("--policy", name, f"give one of {', '.join(POLICIES)}")

    def change(case: Case) -> Variant:
        changed = replace(
            case.setup,
            algorithm=_ALGORITHMS.get(name, Algorithm.PAPER),
            policy=_BASELINES.get(name),
        )
        return Variant(f"policy {name}", replace(case, setup=changed), "--policy")

    return change


def mode(name: str) -> Change:
    """Return the change to a mode of `MODES`."""
    if name not in _MODES:
        raise errors.InvalidValueError("--mode", name, f"give one of {', '.join(MODES)}")
    return lambda case: Variant(f"mode {name}", replace(case, setup=replace(case.setup, mode=_MODES[name])), "--mode")


def speed(text: str) -> Change:
    """Return the change that the same requests arrive so many times faster."""
    factor = _number("--speed", text, text)
    return lambda case: Variant(f"speed {text}", replace(case, traffic=case.traffic.faster(factor)), "--speed")


def pool_workers(option: str, text: str) -> tuple[str, int]:
    """Return the name and the number of POOL=N."""
    name, number = _pair(option, text, "POOL=N")
    if not (number.isascii() and number.isdigit() and int(number) <= _MOST_WORKERS):
        raise errors.InvalidValueError(option, text, f"give a whole number of workers from 0 to {_MOST_WORKERS}")
    return name, int(number)


def _pair(option: str, text: str, form: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals or not value:
        raise errors.InvalidValueError(option, text, f"write {form}")
    return name, value


def _number(option: str, text: str, number: str) -> float:
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise errors.InvalidValueError(option, text, "give a number above 0")
    return value


def _unknown(option: str, name: str, kind: str, known: Iterable[str]) -> errors.InvalidValueError:
    names = ", ".join(sorted(known))
    return errors.InvalidValueError(option, name, f"the route uses {f'the {kind}s {names}' if names else f'no {kind}'}")
