"""The model's numbers are right, and do not depend on company, chunks, page tables, or the processor's instructions."""

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prfaas_workers.tiny import arithmetic, elements, sampling, weights
from prfaas_workers.tiny.model import Model
from prfaas_workers.tiny.store import Geometry, PageStore

TOKENS = st.integers(0, weights.VOCABULARY - 1)
MODEL = Model(weights.make(0), 256)

FINGERPRINT = """
import hashlib
from prfaas_workers.tiny import weights
from prfaas_workers.tiny.model import Model
from prfaas_workers.tiny.store import Geometry, PageStore
store = PageStore(Geometry(weights.Shape(), 16, "bfloat16", "LBNHC"), 8)
print(hashlib.sha256(Model(weights.make(3), 128).forward(range(100), store, range(8), 0).tobytes()).hexdigest())
"""


def random(*shape: int) -> arithmetic.Floats:
    return np.random.default_rng(len(shape)).standard_normal(shape).astype(np.float32)


@given(st.lists(TOKENS, min_size=1, max_size=90), st.data())
@settings(max_examples=30, deadline=None)
def test_chunks_and_pages_do_not_change_a_bit(prompt: list[int], data: st.DataObject) -> None:
    """However a prompt is cut, and wherever its pages lie, logits and KV have the same bits as in one piece."""
    geometry = Geometry(weights.Shape(), 4, "float32", "LBNHC")
    pages = geometry.pages(len(prompt))
    whole = PageStore(geometry, pages)
    expected = MODEL.forward(prompt, whole, range(pages), 0)
    table = data.draw(st.permutations(range(pages)))
    store = PageStore(Geometry(weights.Shape(), 4, "float32", "LBHNC"), pages)
    start = 0
    while start < len(prompt):
        count = data.draw(st.integers(1, len(prompt) - start))
        logits = MODEL.forward(prompt[start : start + count], store, table, start)
        start += count
    assert logits.tobytes() == expected.tobytes()
    for layer in range(MODEL.layers):
        for mine, other in zip(store.read(layer, table, start), whole.read(layer, range(pages), start), strict=True):
            assert mine.tobytes() == other.tobytes()


@pytest.mark.slow
def test_other_instructions_give_the_same_bits() -> None:
    """Prefill and decode may run on different processors: without AVX, and with several threads, nothing changes."""
    features = "AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL AVX2 FMA3 X86_V3 X86_V4"
    plain = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
    outputs = set()
    for environment in (plain, plain | {"NPY_DISABLE_CPU_FEATURES": features, "OPENBLAS_NUM_THREADS": "2"}):
        command = [sys.executable, "-W", "ignore", "-c", FINGERPRINT]
        outputs.add(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)
    assert len(outputs) == 1, outputs


@pytest.mark.parametrize("rows", [1, 7, 40])
def test_products_are_right(rows: int) -> None:
    """They agree with 64-bit arithmetic up to rounding."""
    left, right = random(rows, 64), random(64, 200)
    assert np.allclose(arithmetic.linear(left, right), left.astype(float) @ right, atol=1e-4)


def test_exp_is_right_over_its_range() -> None:
    """Its relative error is a few units in the last place."""
    x = np.linspace(-87, 87, 100_001, dtype=np.float32)
    assert np.allclose(arithmetic.exp(x), np.exp(x.astype(float)), rtol=1e-6, atol=0)


def test_rotations_are_cosine_and_sine() -> None:
    """Also far from the first position."""
    angles = 0.25 ** np.arange(8.0)
    cosines, sines = arithmetic.rotations(angles, 5000)
    turned = np.arange(5000)[:, None] * angles
    assert np.allclose(cosines, np.cos(turned), atol=1e-6)
    assert np.allclose(sines, np.sin(turned), atol=1e-6)


def test_attention_is_causal_softmax() -> None:
    """It agrees with the textbook's formula, and later keys and values do not matter."""
    queries, keys, values = random(9, 2, 2, 16), random(21, 2, 16), random(21, 2, 16)
    attended = arithmetic.attend(queries, keys, values, 12)
    for row, head, group in np.ndindex(9, 2, 2):
        scores = keys[: 13 + row, head].astype(float) @ queries[row, head, group]
        parts = np.exp(scores - scores.max())
        expected = parts @ values[: 13 + row, head] / parts.sum()
        assert np.allclose(attended[row, head, group], expected, atol=1e-5)


@given(st.floats(width=32, allow_nan=False, allow_infinity=False, min_value=-(2.0**100), max_value=2.0**100))
def test_bfloat16_is_the_nearest_value(value: float) -> None:
    """Rounding goes to the nearest of the two neighbours, and stored values survive it."""
    kind = elements.element_type("bfloat16")
    exact = np.array([value], np.float32)
    rounded = kind.unpack(kind.pack(exact))
    assert kind.pack(rounded) == kind.pack(exact)
    low = (exact.view("u4") & 0xFFFF0000).astype("u4")
    neighbours = np.concatenate([low, low + 0x10000]).astype("u4").view(np.float32).astype(float)
    assert abs(rounded[0].astype(float) - value) == np.abs(neighbours - value).min()


def test_weights_are_those_of_their_seed() -> None:
    """The revision changes with the seed and with the shape, and stays otherwise."""
    assert weights.make(0).revision == "seed-0-850dfcdba487"
    others = [weights.make(1), weights.make(0, weights.Shape(layers=2)), weights.make(0, weights.Shape(kv_heads=4))]
    assert len({made.revision for made in others} | {"seed-0-850dfcdba487"}) == 4


def test_sampling_follows_the_distribution() -> None:
    """At temperature 0 the greatest logit wins; otherwise the draws follow the softmax, the same for the same seed."""
    logits = np.log(np.array([0.2, 0.5, 0.3], np.float32))
    assert sampling.choose(logits, 0.0, 0, 0) == 1
    draws = [sampling.choose(logits, 1.0, 5, position) for position in range(4000)]
    assert draws == [sampling.choose(logits, 1.0, 5, position) for position in range(4000)]
    assert draws != [sampling.choose(logits, 1.0, 6, position) for position in range(4000)]
    assert np.allclose(np.bincount(draws) / 4000, [0.2, 0.5, 0.3], atol=0.04)
