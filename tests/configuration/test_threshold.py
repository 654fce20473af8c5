"""The threshold that a route gets."""

import pytest

from prfaas_core import case_study
from prfaas_core.lengths import Lengths
from prfaas_operator.api.route_plan import ThresholdSource
from prfaas_operator.configuration.threshold import Before, Mix, Side, Way
from prfaas_operator.configuration.threshold import choose as choose_with

LINK_BPS = 100e9


PRIOR = Mix()


def choose(wanted, *, before=None, mix=PRIOR, **given):
    """Choose with the prior, and after a threshold that was not measured."""
    return choose_with(
        wanted, before=Before(before, measured=False) if isinstance(before, int) else before, mix=mix, **given
    )


def side(profile, desired, ready="desired"):
    return Side(profile, desired, desired if ready == "desired" else ready)


DECODE, LOCAL, REMOTE = side(case_study.H20, 5), side(case_study.H20, 3), side(case_study.H200, 4)


def test_the_case_study():
    """With the paper's instances the search finds a threshold near the paper's 19.4K, and predicts near its 3.24 req/s."""
    found = choose("Auto", decode=DECODE, local=LOCAL, remote=(Way(REMOTE, LINK_BPS),), before=None)
    assert found.source is ThresholdSource.COMPUTED
    assert found.tokens == pytest.approx(19_400, rel=0.05)
    assert found.requests_per_second == pytest.approx(3.24, rel=0.03)
    assert "4 remote, 3 local and 5 decode workers" in found.why


def test_a_number_is_taken_as_it_is():
    """The prediction is for that number."""
    found = choose(1000, decode=DECODE, local=LOCAL, remote=(Way(REMOTE, LINK_BPS),), before=5)
    assert (found.tokens, found.source) == (1000, ThresholdSource.FIXED)
    best = choose("Auto", decode=DECODE, local=LOCAL, remote=(Way(REMOTE, LINK_BPS),), before=5)
    assert found.requests_per_second < best.requests_per_second


def test_without_a_remote_pool_everything_is_local():
    """The threshold is above every prompt."""
    found = choose("Auto", decode=DECODE, local=LOCAL, remote=(), before=None)
    assert found.tokens == case_study.H20.max_model_len_tokens
    assert "no remote pool" in found.why


def test_pods_that_restart_do_not_move_the_threshold():
    """Workers that are asked for decide; those that are ready only change the prediction."""
    half = side(case_study.H200, 4, ready=2)
    whole = choose("Auto", decode=DECODE, local=LOCAL, remote=(Way(REMOTE, LINK_BPS),), before=None)
    found = choose("Auto", decode=DECODE, local=LOCAL, remote=(Way(half, LINK_BPS),), before=None)
    assert found.tokens == whole.tokens
    assert found.requests_per_second < whole.requests_per_second


def test_no_prediction_for_what_is_not_known():
    """A cluster that does not say how many are ready leaves the prediction out, and the threshold as it is."""
    unknown = side(case_study.H200, 4, ready=None)
    found = choose("Auto", decode=DECODE, local=LOCAL, remote=(Way(unknown, LINK_BPS),), before=None)
    assert found.requests_per_second is None
    assert found.tokens == pytest.approx(19_400, rel=0.05)


def test_a_thin_link_keeps_more_at_home():
    """A tenth of the capacity means a higher threshold."""
    wide = choose("Auto", decode=DECODE, local=LOCAL, remote=(Way(REMOTE, LINK_BPS),), before=None)
    thin = choose("Auto", decode=DECODE, local=LOCAL, remote=(Way(REMOTE, LINK_BPS / 10),), before=None)
    assert thin.tokens > wide.tokens


def test_an_empty_decode_pool_holds():
    """There is nothing to search for; the last threshold stays."""
    found = choose("Auto", decode=side(case_study.H20, 0), local=LOCAL, remote=(Way(REMOTE, LINK_BPS),), before=777)
    assert (found.tokens, found.source) == (777, ThresholdSource.HELD)


def test_each_remote_pool_counts_with_its_own_profile():
    """A second pool adds what its own instances do: fast ones take more away from the local pool than slow ones."""
    slow = side(case_study.H20, 4)
    one, fast_too, slow_too = (
        choose("Auto", decode=side(case_study.H20, 20), local=LOCAL, remote=remote, before=None)
        for remote in (
            (Way(REMOTE, LINK_BPS),),
            (Way(REMOTE, LINK_BPS), Way(REMOTE, LINK_BPS)),
            (Way(REMOTE, LINK_BPS), Way(slow, LINK_BPS)),
        )
    )
    assert fast_too.tokens < slow_too.tokens < one.tokens
    assert fast_too.requests_per_second > slow_too.requests_per_second > one.requests_per_second


def test_a_pool_behind_a_dead_link_counts_for_nothing():
    """Its instances change neither threshold nor prediction."""
    one = choose("Auto", decode=DECODE, local=LOCAL, remote=(Way(REMOTE, LINK_BPS),), before=None)
    both = choose("Auto", decode=DECODE, local=LOCAL, remote=(Way(REMOTE, LINK_BPS), Way(REMOTE, 0.0)), before=None)
    assert (both.tokens, both.requests_per_second) == (one.tokens, one.requests_per_second)


def test_without_local_prefill_the_decode_workers_share_their_time():
    """Eight workers that do both carry what the best split of roles cannot exceed, and not the sum of both."""
    found = choose("Auto", decode=side(case_study.H20, 8), local=None, remote=(Way(REMOTE, LINK_BPS),), before=None)
    assert found.requests_per_second == pytest.approx(3.341, rel=0.005)
    assert "decode" in found.why


def test_what_routers_measure_replaces_the_prior():
    """Shorter prompts mean a lower threshold, and the source says where it comes from."""
    half = Lengths.of(tokens / 2 for tokens in case_study.LENGTHS.sample[::20])
    sides = {"decode": DECODE, "local": LOCAL, "remote": (Way(REMOTE, LINK_BPS),)}
    prior = choose("Auto", **sides)
    found = choose("Auto", **sides, mix=Mix(half, 300))
    assert found.source is ThresholdSource.MEASURED
    assert found.tokens < 0.6 * prior.tokens


def test_a_measured_threshold_is_held_while_nothing_is_measured():
    """Neither a restarted operator nor an idle night brings the prior back."""
    sides = {"decode": DECODE, "local": LOCAL, "remote": (Way(REMOTE, LINK_BPS),)}
    found = choose("Auto", **sides, before=Before(7000, measured=True))
    assert (found.tokens, found.source) == (7000, ThresholdSource.HELD)
    assert choose("Auto", **sides, before=Before(7000, measured=False)).tokens == pytest.approx(19_400, rel=0.05)


def test_a_small_gain_moves_nothing_and_a_large_one_does():
    """What is measured is noisy; the threshold is not."""
    sides = {"decode": DECODE, "local": LOCAL, "remote": (Way(REMOTE, LINK_BPS),)}
    best = choose("Auto", **sides).tokens
    assert choose("Auto", **sides, before=best + 200).tokens == best + 200
    assert "would not carry clearly more" in choose("Auto", **sides, before=best + 200).why
    assert choose("Auto", **sides, before=2 * best).tokens == best


def test_scarce_decode_does_not_move_the_threshold():
    """Decode carries the same at every threshold, so the prefill sides are balanced as if it carried more."""
    few = choose("Auto", decode=side(case_study.H20, 1), local=LOCAL, remote=(Way(REMOTE, LINK_BPS),))
    many = choose("Auto", decode=side(case_study.H20, 50), local=LOCAL, remote=(Way(REMOTE, LINK_BPS),))
    assert few.tokens == many.tokens
    assert "decode binds" in few.why
    assert few.requests_per_second == pytest.approx(0.781, rel=0.01)


def test_pools_behind_one_link_share_it():
    """A second pool behind a full link adds nothing; with a link of its own it does."""
    thin = 3e9
    decode = side(case_study.H20, 50)
    one, shared, apart = (
        choose("Auto", decode=decode, local=LOCAL, remote=remote, before=None)
        for remote in (
            (Way(REMOTE, thin, "a"),),
            (Way(REMOTE, thin, "a"), Way(REMOTE, thin, "a")),
            (Way(REMOTE, thin, "a"), Way(REMOTE, thin, "b")),
        )
    )
    assert shared.requests_per_second == pytest.approx(one.requests_per_second, rel=0.01)
    assert apart.requests_per_second > 1.1 * one.requests_per_second


def test_a_change_says_what_it_gains():
    """As the plan for the route's status has it."""
    sides = {"decode": DECODE, "local": LOCAL, "remote": (Way(REMOTE, LINK_BPS),)}
    found = choose("Auto", **sides, before=90_000)
    assert found.gain > 0.3
    assert found.carried_rps == pytest.approx(3.24, rel=0.03)
    assert found.bound_by
    assert choose("Auto", **sides, before=found.tokens).gain is None


def test_prices_come_with_measured_rates():
    """At the threshold a request costs the same on both sides, and pools behind one link pay one price for it."""
    half = Lengths.of(tokens / 2 for tokens in case_study.LENGTHS.sample[::20])
    ways = (Way(REMOTE, 3e9, "a", "one"), Way(REMOTE, 3e9, "a", "two"))
    sides = {"decode": side(case_study.H20, 50), "local": LOCAL, "remote": ways}
    assert choose("Auto", **sides, mix=Mix(half, 300)).prices is None
    found = choose("Auto", **sides, mix=Mix(half, 300, rate_rps=3.0))
    prices = found.prices
    assert set(prices.remote) == {"one", "two"}
    assert list(prices.links) == ["a"]
    kv_s = 8 * case_study.H200.kv_bytes(found.tokens) / 3e9
    here = prices.local.base * case_study.H20.prefill_s(found.tokens)
    there = prices.remote["one"].base * case_study.H200.prefill_s(found.tokens) + prices.links["a"].base * kv_s
    assert min(prices.remote["one"].price, prices.remote["two"].price) > 0
    assert here == pytest.approx(there, rel=0.1)
    busier = choose("Auto", **sides, mix=Mix(half, 300, rate_rps=4.0)).prices
    assert busier.local.price > prices.local.price > 0
    assert busier.links["a"].price > prices.links["a"].price > 0


def test_few_requests_need_more_gain():
    """A threshold moves when that is worth it beyond what chance does to a share."""
    lengths = Lengths.of(case_study.LENGTHS.sample[::20])
    sides = {"decode": DECODE, "local": LOCAL, "remote": (Way(REMOTE, LINK_BPS),)}
    best = choose("Auto", **sides, mix=Mix(lengths, 1024)).tokens
    before = round(best * 1.1)
    gain = choose("Auto", **sides, mix=Mix(lengths, 1024, requests=1e6), before=before).gain
    assert gain > 0.05
    enough, few = ((0.5 / (gain - 0.03)) ** 2 * factor for factor in (1.2, 0.8))
    assert choose("Auto", **sides, mix=Mix(lengths, 1024, requests=enough), before=before).tokens == best
    found = choose("Auto", **sides, mix=Mix(lengths, 1024, requests=few), before=before)
    assert (found.tokens, found.gain) == (before, None)


@pytest.mark.parametrize(
    "mix", [PRIOR, Mix(Lengths.of(case_study.LENGTHS.sample[::20]), 1024, rate_rps=1.0)], ids=["prior", "measured"]
)
def test_a_remote_pool_that_sleeps_counts_with_the_worker_that_it_would_wake_with(mix):
    """Or no request would ever be long enough to wake it. One that is scaled to zero for good counts for nothing."""
    asleep, gone, one = Side(case_study.H200, 0, 0, wakes=True), side(case_study.H200, 0), side(case_study.H200, 1)
    sides = {"decode": DECODE, "local": LOCAL, "mix": mix}
    sleeping, removed, awake = (
        choose("Auto", **sides, remote=(Way(found, LINK_BPS),)) for found in (asleep, gone, one)
    )
    assert (sleeping.tokens, sleeping.requests_per_second) == (awake.tokens, awake.requests_per_second)
    assert (sleeping.prices is None) == (mix is PRIOR)
    assert sleeping.prices == awake.prices
    assert removed.tokens > 2 * sleeping.tokens


def test_a_sleeping_pool_that_woke_counts_with_all_its_workers():
    """It is no different from any other then."""
    awake = Side(case_study.H200, 4, 4, wakes=True)
    sides = {"decode": DECODE, "local": LOCAL}
    assert choose("Auto", **sides, remote=(Way(awake, LINK_BPS),)) == choose(
        "Auto", **sides, remote=(Way(REMOTE, LINK_BPS),)
    )


def test_while_decode_sleeps_there_is_a_threshold_for_when_it_wakes():
    """The prefill sides are balanced as with any decode pool."""
    sleeping = Side(case_study.H20, 0, 0, wakes=True)
    found = choose("Auto", decode=sleeping, local=LOCAL, remote=(Way(REMOTE, LINK_BPS),))
    assert found.source is ThresholdSource.COMPUTED
    assert found.tokens == choose("Auto", decode=DECODE, local=LOCAL, remote=(Way(REMOTE, LINK_BPS),)).tokens
