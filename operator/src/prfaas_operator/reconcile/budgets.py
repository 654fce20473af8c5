"""Budget: what pools of a namespace use together, and which of them it holds back."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from prfaas_operator import api
from prfaas_operator.api.budget import HeldBack, LinkLimit, ResourceUse
from prfaas_operator.api.conditions import Reason
from prfaas_operator.events import EventType
from prfaas_operator.objects import POOL_KINDS, Ref, Stored
from prfaas_operator.reconcile import metering, pools
from prfaas_operator.reconcile.context import Context, now
from prfaas_operator.scaling.budgets import Balance, Book, BudgetedPool, Limit
from prfaas_operator.status import Conditions, previous

# What links carry is measured again and again, and no object changes by it.
_LINKS_AGAIN_S = 10.0
_SHOWN = 64


async def reconcile(context: Context, stored: Stored) -> float | None:
    """Report what is used of a budget."""
    ref, budget = stored.ref, stored.model
    if stored.deleting:
        return None
    if not isinstance(budget, api.Budget):
        conditions = Conditions(stored.generation, now())
        conditions.conclude(ready=False, reason=Reason.INVALID_SPEC, message=stored.fault, stalled=True)
        await context.write_status(
            stored, api.BudgetStatus(observed_generation=stored.generation, conditions=conditions.merge(()))
        )
        return None
    balance = context.budgets.balance(ref.namespace)
    if balance is None:
        return None
    status = budget_status(context, stored, budget, balance)
    context.metrics.budgeted(
        ref.namespace,
        ref.name,
        {use.resource: (use.used, use.limit) for use in status.resources},
        {(held.kind, held.name): held.wanted_replicas - held.granted_replicas for held in status.held_back},
    )
    if await context.write_status(stored, status):
        _announce(context, ref, budget.status, status)
    return _LINKS_AGAIN_S if budget.spec.links else None


def budget_status(context: Context, stored: Stored, budget: api.Budget, balance: Balance) -> api.BudgetStatus:
    """Return the status of a budget."""
    keys = [key for key, limit in balance.book.limits.items() if limit.budget == stored.ref.name]
    uses, words, over = [], [], []
    for key in keys:
        limit, (used, leaving) = balance.book.limits[key], balance.book.used(key, balance.has)
        use = ResourceUse(resource=limit.resource, used=float(f"{used:.6g}"), limit=float(f"{limit.limit:.6g}"))
        uses.append(use)
        drains = f" ({leaving:.6g} by workers that leave)" if leaving else ""
        words.append(f"{use.resource} {use.used:g} of {use.limit:g}{drains}")
        if used - leaving > limit.limit * (1 + 1e-9):
            over.append(use.resource)
    text = ", ".join(words)
    held = list(_held_back(balance, keys))
    conditions = Conditions(stored.generation, now())
    missing = [link.name for link in budget.spec.links if not _link(context, stored.ref.namespace, link)]
    unknown = [
        f"{ref.kind} {ref.name}: {pool.unknown[key]}"
        for ref, pool in balance.book.pools.items()
        for key in keys
        if key in pool.unknown
    ]
    if missing:
        message = (
            f"spec.links: no KVLink {', '.join(missing)} in namespace {stored.ref.namespace}; make it, or leave it out"
        )
        conditions.conclude(ready=False, reason=Reason.LINK_NOT_FOUND, message=message, stalled=True)
    elif unknown:
        message = f"{text}, without what is not known; {'; '.join(unknown)}"
        conditions.conclude(ready=False, reason=Reason.COST_UNKNOWN, message=message)
    elif over:
        message = f"{text}; {', '.join(over)} is more than there is, and minReplicas, replicas or links keep it so"
        conditions.conclude(ready=False, reason=Reason.BUDGET_EXCEEDED, message=message)
    else:
        conditions.conclude(ready=True, reason=Reason.AVAILABLE, message=text)
    return api.BudgetStatus(
        observed_generation=stored.generation,
        conditions=conditions.merge(previous(budget)),
        pools=sum(1 for pool in balance.book.pools.values() if _is_for(pool, keys)),
        resources=tuple(uses),
        held_back=tuple(held[:_SHOWN]),
        message=text,
    )


def book(context: Context, namespace: str) -> Book | None:
    """Return the budgets of a namespace and their pools; None without budgets."""
    budgets = [item for item in context.store.models(api.Budget, namespace) if not item[0].deleting]
    if not budgets:
        return None
    limits: dict[str, Limit] = {}
    parts: dict[Ref, _Parts] = {}
    for ref in context.store.refs(POOL_KINDS):
        found = context.store.get(ref)
        if (
            ref.namespace == namespace
            and found is not None
            and isinstance(found.model, api.Pool)
            and not found.deleting
        ):
            parts[ref] = _Parts(found, found.model)
    for stored, budget in budgets:
        name, spec = stored.ref.name, budget.spec
        labels = spec.pools.match_labels if spec.pools is not None else {}
        chosen = {ref: part for ref, part in parts.items() if labels.items() <= part.labels.items()}
        for part in chosen.values():
            part.budgets.add(name)
        if spec.accelerators is not None:
            resource = f"accelerators {spec.accelerators.name}" if spec.accelerators.name else "accelerators"
            limits[f"{name}/{resource}"] = Limit(name, resource, spec.accelerators.count)
            for part in chosen.values():
                part.take_accelerators(context, f"{name}/{resource}", spec.accelerators.name)
        if spec.cost_per_hour is not None:
            limits[f"{name}/costPerHour"] = Limit(name, "costPerHour", spec.cost_per_hour)
            for part in chosen.values():
                part.take_money(context, f"{name}/costPerHour")
        for link in spec.links:
            _take_link(context, name, namespace, link, chosen, limits)
    return Book(limits, {ref: part.pool(context) for ref, part in parts.items() if part.budgets})


@dataclass(slots=True)
class _Parts:
    """What a pool's entry in the book is made from."""

    stored: Stored
    model: api.Pool
    budgets: set[str] = field(default_factory=set)
    costs: dict[str, float] = field(default_factory=dict)
    unknown: dict[str, str] = field(default_factory=dict)

    @property
    def labels(self) -> dict[str, str]:
        return self.stored.body["metadata"].get("labels") or {}

    def take_accelerators(self, context: Context, key: str, name: str | None) -> None:
        profile = self._profile(context)
        if profile is None:
            self.unknown[key] = (
                f"there is no ModelProfile {self.model.spec.profile_ref.name} that says its accelerators"
            )
        elif name in (None, profile.spec.accelerator.name):
            self.costs[key] = float(profile.spec.accelerator.count_per_instance)

    def take_money(self, context: Context, key: str) -> None:
        profile = self._profile(context)
        price = profile.spec.accelerator.cost_per_hour if profile is not None else None
        if profile is None or price is None:
            name = self.model.spec.profile_ref.name
            self.unknown[key] = f"ModelProfile {name} gives no accelerator.costPerHour; set it"
        else:
            self.costs[key] = price * profile.spec.accelerator.count_per_instance

    def pool(self, context: Context) -> BudgetedPool:
        spec = self.model.spec
        existing = self.model.status.replicas or 0
        if spec.scaling is None:
            replicas = pools.desired_replicas(context, self.stored, self.model)
            return BudgetedPool(0, replicas, replicas, replicas, self.costs, self.unknown, existing)
        scaling = spec.scaling
        known = self.model.status.desired_replicas
        replicas = min(max(known if known is not None else 0, scaling.min_replicas), scaling.max_replicas)
        return BudgetedPool(
            scaling.priority, replicas, scaling.min_replicas, scaling.max_replicas, self.costs, self.unknown, existing
        )

    def _profile(self, context: Context) -> api.ModelProfile | None:
        found = context.store.model(api.ModelProfile, self.stored.ref.namespace, self.model.spec.profile_ref.name)
        return found[1] if found is not None else None


def _take_link(
    context: Context,
    budget: str,
    namespace: str,
    wanted: LinkLimit,
    chosen: dict[Ref, _Parts],
    limits: dict[str, Limit],
) -> None:
    """Take a link's share into the book: a worker behind it takes what the ready ones send on the average."""
    link = _link(context, namespace, wanted)
    if link is None:
        return
    stored, model = link
    resource = f"bit/s of link {wanted.name}"
    key = f"{budget}/{resource}"
    limits[key] = Limit(
        budget, resource, wanted.share * context.capacities.believed(stored.ref, model).bps, measured=True
    )
    names = {workers.pool for workers, _ in metering.metered(context, stored, model).behind}
    behind = [Ref(api.PrefillPool.__name__, namespace, name) for name in sorted(names)]
    ready = [
        found[1].status.ready_replicas
        for ref in behind
        if (found := context.store.model(api.PrefillPool, namespace, ref.name)) is not None
    ]
    reading = context.links.reading(stored.ref)
    serving = sum(count or 0 for count in ready)
    each_bps, why = 0.0, ""
    if None in ready or reading is None:
        why = f"what crosses KVLink {wanted.name} was not measured yet"
    elif serving and reading.used_bps is None:
        why = f"what crosses KVLink {wanted.name} is not known: {reading.message}"
    elif serving and reading.used_bps is not None:
        each_bps = reading.used_bps / serving
    for ref in behind:
        if ref in chosen and why:
            chosen[ref].unknown[key] = why
        elif ref in chosen:
            chosen[ref].costs[key] = each_bps


def _link(context: Context, namespace: str, link: LinkLimit) -> tuple[Stored, api.KVLink] | None:
    return context.store.model(api.KVLink, namespace, link.name)


def _is_for(pool: BudgetedPool, keys: list[str]) -> bool:
    return any(key in pool.costs or key in pool.unknown for key in keys)


def _held_back(balance: Balance, keys: list[str]) -> Iterator[HeldBack]:
    """Yield the pools that have fewer than they want for want of one of these resources."""
    order = sorted(balance.book.pools, key=lambda ref: (-balance.book.pools[ref].priority, str(ref)))
    for ref in order:
        short = tuple(balance.book.limits[key].resource for key in balance.short(ref) if key in keys)
        if short and balance.granted(ref) < balance.wanted[ref]:
            yield HeldBack(
                kind=ref.kind,
                name=ref.name,
                wanted_replicas=balance.wanted[ref],
                granted_replicas=balance.granted(ref),
                short=short,
            )


def _announce(context: Context, budget: Ref, before: api.BudgetStatus, after: api.BudgetStatus) -> None:
    """Tell of pools that were not held back before."""
    known = {(held.kind, held.name) for held in before.held_back}
    for held in after.held_back:
        pool = context.store.get(Ref(held.kind, budget.namespace, held.name))
        if (held.kind, held.name) not in known and pool is not None:
            message = (
                f"Budget {budget.name} grants {held.granted_replicas} of {held.wanted_replicas} replicas; "
                f"short: {', '.join(held.short)}"
            )
            context.events.record(pool, EventType.WARNING, "HeldBack", message)
