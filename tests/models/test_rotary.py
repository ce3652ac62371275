"""Rotary positions: what turning means, and the ways to stretch it, by hand and by transformers."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from tfbig.models import (
    Attention,
    Block,
    FeedForward,
    LongRotary,
    PreNorm,
    RMSNorm,
    Rotary,
    Transformer,
    rotary_frequencies,
)
from tfbig.models.rotary import (
    cache_borders,
    linear_scaled,
    llama3_scaled,
    long_magnitude,
    rotated,
    yarn_magnitude,
    yarn_scaled,
)


def draws(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape)


def turned(x: np.ndarray, positions: np.ndarray, frequencies: tuple[float, ...]) -> np.ndarray:
    """The definition, by complex numbers: dimensions i and i + n are one, times exp(i angle)."""
    half = len(frequencies)
    angles = positions[:, :, None, None] * np.array(frequencies)
    pairs = (x[..., :half] + 1j * x[..., half : 2 * half]) * np.exp(1j * angles)
    return np.concatenate([pairs.real, pairs.imag, x[..., 2 * half :]], axis=-1)


@pytest.mark.parametrize("dim", [8, 12])  # all dimensions, and the first eight of twelve
def test_turning_is_a_product_of_complex_numbers(dim):
    frequencies = rotary_frequencies(8)
    x, positions = draws(2, 5, 3, dim), np.array([[0, 1, 2, 3, 4], [7, 7, 100, 0, 5]])
    found = Rotary(frequencies, dtype="float64")(x, ops.array(positions))
    np.testing.assert_allclose(found, turned(x, positions, frequencies), rtol=1e-12, atol=1e-12)


def test_a_magnitude_multiplies_what_is_turned_and_not_the_rest():
    x, positions = draws(1, 4, 2, 6), ops.arange(4)[None]
    plain = ops.convert_to_numpy(Rotary((1.0, 0.1), dtype="float64")(x, positions))
    larger = ops.convert_to_numpy(Rotary((1.0, 0.1), 1.5, dtype="float64")(x, positions))
    np.testing.assert_allclose(larger[..., :4], 1.5 * plain[..., :4], rtol=1e-12)
    np.testing.assert_array_equal(larger[..., 4:], x[..., 4:])


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 4000), st.integers(0, 4000), st.integers(-2000, 2000))
def test_scores_depend_on_the_distance_alone(query_at, key_at, shift):
    query, key = draws(2, 1, 1, 1, 8)
    rotary = Rotary(rotary_frequencies(8), dtype="float64")

    def score(query_at: int, key_at: int) -> float:
        return float(
            np.sum(
                ops.convert_to_numpy(rotary(query, ops.array([[query_at]])))
                * ops.convert_to_numpy(rotary(key, ops.array([[key_at]])))
            )
        )

    # An angle of 6000 in float64 is known to 1e-12.
    assert score(query_at, key_at) == pytest.approx(
        score(query_at + shift, key_at + shift), abs=1e-10
    )


def test_turning_keeps_lengths_and_position_zero():
    x = draws(1, 3, 1, 8)
    found = ops.convert_to_numpy(rotated(ops.array(x), draws(1, 3, 4)))
    np.testing.assert_allclose(np.linalg.norm(found, axis=-1), np.linalg.norm(x, axis=-1))
    np.testing.assert_array_equal(rotated(ops.array(x), np.zeros((1, 3, 4))), x)


def test_the_frequencies_by_hand():
    # 10000^(-2i/8) for i = 0, 1, 2, 3.
    assert rotary_frequencies(8) == pytest.approx([1, 0.1, 0.01, 0.001])
    assert linear_scaled((1.0, 0.5), 4.0) == (0.25, 0.125)


def test_llama3_by_hand():
    # Turns within 100 positions; below 1 divided by 8, above 4 as they are, 2.5 is half between.
    frequencies = tuple(2 * math.pi * turns / 100 for turns in (5.0, 4.0, 2.5, 1.0, 0.5))
    shares = [1, 1, 0.5 + 0.5 / 8, 1 / 8, 1 / 8]
    found = llama3_scaled(frequencies, 8.0, 1.0, 4.0, 100)
    assert found == pytest.approx([f * s for f, s in zip(frequencies, shares, strict=True)])


def test_the_magnitudes_by_hand():
    assert yarn_magnitude(math.e**5) == pytest.approx(1.5)
    assert long_magnitude(1000.0, 10) == pytest.approx(2.0)  # sqrt(1 + 3)
    assert yarn_magnitude(1.0) == long_magnitude(0.5, 10) == 1.0


def test_two_sets_by_the_furthest_position():
    rotary = LongRotary((1.0,), (0.25,), original_length=4, magnitude=2.0, dtype="float64")
    x = draws(1, 4, 1, 2)
    for positions, frequency in (([0, 1, 2, 3], 1.0), ([0, 1, 2, 4], 0.25)):
        expected = 2 * turned(x, np.array([positions]), (frequency,))
        np.testing.assert_allclose(rotary(x, ops.array([positions])), expected, rtol=1e-12)


def test_each_row_of_a_batch_is_long_or_short_by_itself():
    rotary = LongRotary((1.0,), (0.25,), original_length=4, dtype="float64")
    x, positions = draws(3, 2, 1, 2), np.array([[2, 3], [3, 4], [0, 1]])
    found = ops.convert_to_numpy(rotary(x, ops.array(positions)))
    for row, frequency in enumerate((1.0, 0.25, 1.0)):
        expected = turned(x[row : row + 1], positions[row : row + 1], (frequency,))
        np.testing.assert_allclose(found[row : row + 1], expected, rtol=1e-12)


def test_the_borders_of_a_stack_are_those_of_its_attentions():
    def block(rotary):
        return Block(Attention(1, 4, rotary=rotary), FeedForward(4), PreNorm(RMSNorm()))

    plain, long, longer = Rotary((1.0,)), LongRotary((1.0,), (0.5,), 4), LongRotary((1,), (0.5,), 9)
    assert cache_borders(Transformer([block(None), block(plain)], 2)) == frozenset()
    assert cache_borders(Transformer([block(long), block(None), block(longer)], 4)) == {4, 9}


def reference(kind: str, seq_len: int | None = None, **fields: object) -> tuple[np.ndarray, float]:
    """What transformers makes of the same numbers: frequencies and magnitude."""
    pytest.importorskip("torch", reason="transformers' own functions are the oracle")
    transformers = pytest.importorskip("transformers")
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    config = transformers.LlamaConfig(
        hidden_size=64,
        num_attention_heads=2,
        max_position_embeddings=8192,
        rope_parameters={"rope_type": kind, "rope_theta": 10_000.0, **fields},
    )
    frequencies, magnitude = ROPE_INIT_FUNCTIONS[kind](config, "cpu", seq_len)
    return frequencies.numpy(), magnitude


PLAIN = rotary_frequencies(32)


@pytest.mark.parametrize("factor", [2.0, 8.0, 40.0])
def test_the_scalings_are_those_of_transformers(factor):
    original = {"original_max_position_embeddings": 1024}
    # They compute powers in float32, whose error the logarithms of small frequencies enlarge.
    close = {"rtol": 2e-6}

    expected, magnitude = reference("linear", factor=factor)
    np.testing.assert_allclose(linear_scaled(PLAIN, factor), expected, **close)
    assert magnitude == 1.0

    borders = {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
    expected, magnitude = reference("llama3", factor=factor, **borders, **original)
    np.testing.assert_allclose(llama3_scaled(PLAIN, factor, 1.0, 4.0, 1024), expected, **close)
    assert magnitude == 1.0

    expected, magnitude = reference("yarn", factor=factor, **original)
    np.testing.assert_allclose(yarn_scaled(PLAIN, factor, 1e4, 1024), expected, **close)
    assert yarn_magnitude(factor) == pytest.approx(magnitude)

    ramp = {"beta_fast": 16.0, "beta_slow": 2.0}
    expected, _ = reference("yarn", factor=factor, **ramp, **original)
    found = yarn_scaled(PLAIN, factor, 1e4, 1024, fast=16.0, slow=2.0)
    np.testing.assert_allclose(found, expected, **close)


def test_the_two_sets_are_those_of_transformers():
    short, long = np.linspace(1, 2, 16), np.linspace(1, 30, 16)
    fields = {"short_factor": list(short), "long_factor": list(long), "factor": 8.0}
    fields["original_max_position_embeddings"] = 1024
    rotary = LongRotary(PLAIN / short, PLAIN / long, 1024, long_magnitude(8.0, 1024))
    for length in (1024, 1025):
        expected, magnitude = reference("longrope", length, **fields)
        angles = rotary.angles(ops.array([[1, length - 1]]))[0, 0]
        np.testing.assert_allclose(angles, expected, rtol=2e-6)
        assert rotary.magnitude == pytest.approx(magnitude)
