"""Samplers: by hand, against `transformers`' logits processors, and what they refuse."""

import math

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from tfbig.generation import (
    Chain,
    Greedy,
    MinP,
    RepetitionPenalty,
    Temperature,
    TopK,
    TopP,
    sampler_of,
)
from tfbig.generation.samplers import drawn, less_repeated, likely_enough, nucleus, tempered

INF = math.inf


def logs(*probabilities):
    return ops.log(ops.array([probabilities]))


def kept(logits):
    return [i for i, value in enumerate(keras.ops.convert_to_numpy(logits)[0]) if value > -INF]


def test_the_nucleus_by_hand():
    # Sums from the likeliest on: 0.4, 0.7, 0.9, 1.
    logits = logs(0.2, 0.4, 0.1, 0.3)
    for p, tokens in [
        (0.3, [1]),
        (0.41, [1, 3]),
        (0.69, [1, 3]),
        (0.71, [0, 1, 3]),
        (1, [*range(4)]),
    ]:
        assert kept(nucleus(logits, p)) == tokens, p
    # The one that passes the border is of two equals: both stay.
    assert kept(nucleus(logs(0.25, 0.5, 0.25), 0.6)) == [0, 1, 2]


def test_min_p_and_the_penalty_by_hand():
    assert kept(likely_enough(logs(0.2, 0.4, 0.1, 0.3), 0.6)) == [1, 3]  # 0.24 and more
    assert kept(likely_enough(logs(0.2, 0.4, 0.1, 0.3), 0)) == [0, 1, 2, 3]
    logits = ops.array([[3.0, -3.0, 0.0, 1.0], [3.0, -3.0, 0.0, 1.0]])
    seen = ops.array([[0, 1, 1], [3, 3, 3]])
    expected = [[2.0, -4.5, 0.0, 1.0], [3.0, -3.0, 0.0, 1 / 1.5]]
    # 1e-6: float32.
    np.testing.assert_allclose(less_repeated(logits, seen, 1.5), expected, rtol=1e-6)


def test_temperature_zero_is_greedy_and_the_first_of_equals():
    logits = ops.array([[1.0, 5.0, 5.0, 2.0]])
    assert kept(tempered(logits, 0)) == kept(Greedy()(logits, None)) == [1]


def test_the_draw_has_the_probabilities():
    """With numbers spread evenly over [0, 1), each token's share is its probability."""
    probabilities, count = np.array([0.1, 0.0, 0.45, 0.25, 0.2]), 1000
    with np.errstate(divide="ignore"):
        logits = np.repeat(np.log(probabilities)[None], count, axis=0).astype("float32")
    uniforms = ((np.arange(count) + 0.5) / count).astype("float32")
    ids = ops.convert_to_numpy(drawn(ops.array(logits), ops.array(uniforms)))
    # One more or less at each border, by rounding.
    np.testing.assert_allclose(np.bincount(ids, minlength=5), count * probabilities, atol=1)
    assert 1 not in ids


def test_the_draw_at_the_borders():
    largest = np.nextafter(np.float32(1), np.float32(0))
    logits = ops.array([[-INF, 0.0, 0.0, -INF], [-INF, 0.0, 0.0, -INF], [INF, 0, 0, 0], [-INF] * 4])
    ids = drawn(logits, ops.array([0.0, largest, 0.5, 0.5]))
    # The first and the last that may be drawn; then two rows without a number to draw from.
    assert ops.convert_to_numpy(ids).tolist() == [1, 2, -1, -1]


@pytest.mark.parametrize(
    ("ours", "theirs", "argument"),
    [
        (Temperature, "TemperatureLogitsWarper", 0.7),
        (TopK, "TopKLogitsWarper", 7),
        (TopK, "TopKLogitsWarper", 1000),
        (TopP, "TopPLogitsWarper", 0.9),
        (TopP, "TopPLogitsWarper", 0.2),
        (MinP, "MinPLogitsWarper", 0.1),
        (RepetitionPenalty, "RepetitionPenaltyLogitsProcessor", 1.3),
        (RepetitionPenalty, "RepetitionPenaltyLogitsProcessor", 0.8),
    ],
)
def test_equals_transformers(ours, theirs, argument):
    torch = pytest.importorskip("torch", reason="the oracle is PyTorch")
    processors = pytest.importorskip(
        "transformers.generation.logits_process", reason="the oracle is transformers"
    )
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(3, 50)).astype("float32") * 3
    history = rng.integers(0, 50, (3, 8)).astype("int32")
    expected = getattr(processors, theirs)(argument)(
        torch.tensor(history).long(), torch.tensor(logits)
    ).numpy()
    found = ops.convert_to_numpy(ours(argument)(ops.array(logits), ops.array(history)))
    assert (expected == -INF).any() == (ours in (TopP, MinP) or argument == 7)
    # 1e-6: float32.
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_a_chain_equals_transformers_order():
    torch = pytest.importorskip("torch", reason="the oracle is PyTorch")
    transformers = pytest.importorskip("transformers", reason="the oracle is transformers")
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(2, 40)).astype("float32") * 3
    history = rng.integers(0, 40, (2, 5)).astype("int32")
    theirs = transformers.LogitsProcessorList(
        [
            transformers.RepetitionPenaltyLogitsProcessor(1.2),
            transformers.TemperatureLogitsWarper(0.6),
            transformers.TopKLogitsWarper(12),
            transformers.TopPLogitsWarper(0.95),
            transformers.MinPLogitsWarper(0.05),
        ]
    )
    expected = theirs(torch.tensor(history).long(), torch.tensor(logits)).numpy()
    ours = sampler_of(0.6, top_k=12, top_p=0.95, min_p=0.05, repetition_penalty=1.2)
    found = ops.convert_to_numpy(ours(ops.array(logits), ops.array(history)))
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    other = Chain((TopK(12), RepetitionPenalty(1.2)))(ops.array(logits), ops.array(history))
    assert not np.allclose(ops.convert_to_numpy(other), expected)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.floats(-8, 8, width=32), min_size=2, max_size=12),
    st.floats(0.01, 0.99),
)
def test_the_nucleus_is_the_smallest(values, p):
    logits = np.array([values], "float32")
    probabilities = np.exp(logits[0].astype("float64"))
    probabilities /= probabilities.sum()
    tokens = kept(nucleus(ops.array(logits), p))
    least = probabilities[tokens].min()
    # 1e-6: sums of float32. Together p; without those as likely as the least, less than p.
    assert probabilities[tokens].sum() >= p - 1e-6
    assert probabilities[probabilities > least * (1 + 1e-6)].sum() < p + 1e-6


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Temperature(-0.1), "temperature is 0 .greedy. or a positive number, and was -0.1"),
        (lambda: Temperature(math.nan), "was nan"),
        (lambda: TopK(0), "1 or more, and was 0"),
        (lambda: TopK(2.5), "whole number"),
        (lambda: TopP(0), "above 0 and at most 1, and was 0"),
        (lambda: TopP(1.1), "was 1.1"),
        (lambda: MinP(-0.1), "from 0 to 1"),
        (lambda: RepetitionPenalty(0), "positive number, and was 0"),
        (lambda: sampler_of(top_p=2.0), "top_p"),
    ],
)
def test_refuses(make, message):
    with pytest.raises(ValueError, match=message):
        make()
