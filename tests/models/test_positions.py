"""Positions that are added: sinusoids, tables, and T5's buckets of distances."""

import math

import numpy as np
import pytest
from keras import ops

from tfbig.models import LearnedPositions, RelativeBias, SinusoidalPositions
from tfbig.models.masks import positions_of
from tfbig.models.positions import relative_buckets, sinusoids


def test_sinusoids_by_hand():
    table = ops.convert_to_numpy(sinusoids(ops.array([[0, 3]]), 6))[0]
    # Three waves: 10000^0, 10000^(-1/3), 10000^(-2/3).
    angles = [3.0, 3 / 10_000 ** (1 / 3), 3 / 10_000 ** (2 / 3)]
    np.testing.assert_array_equal(table[0], [0, 0, 0, 1, 1, 1])
    expected = [*map(math.sin, angles), *map(math.cos, angles)]
    np.testing.assert_allclose(table[1], expected, rtol=1e-6)


def test_sinusoids_are_marians():
    pytest.importorskip("torch", reason="transformers' own table is the oracle")
    modeling = pytest.importorskip("transformers.models.marian.modeling_marian")
    expected = modeling.MarianSinusoidalPositionalEmbedding(40, 12).create_weight().numpy()
    found = SinusoidalPositions(12)(ops.arange(40)[None])[0]
    # An angle of 39 in float32 is known to 2e-6.
    np.testing.assert_allclose(found, expected, atol=4e-6)


def test_learned_positions_are_rows_of_the_table_from_the_offset_on():
    layer = LearnedPositions(5, 3, offset=2)
    layer.build()
    table = np.arange(21.0).reshape(7, 3)
    layer.embeddings.assign(table)
    np.testing.assert_array_equal(layer(ops.array([[4, 0]]))[0], table[[6, 2]])


def test_a_row_longer_than_the_table_is_refused():
    layer = LearnedPositions(5, 3)
    assert layer(ops.arange(5)[None]).shape == (1, 5, 3)
    with pytest.raises(ValueError, match="6 positions.*vectors of 5"):
        layer(ops.arange(6)[None])


def test_buckets_by_hand():
    # 32 buckets, 16 for each side: 8 of one distance, then 8 + floor(8 ln(d/8) / ln(16)).
    # d = 8: 8; 11: 8.92; 12: 9.17; 16: 10; 64: 14; 90: 14.98; 91: 15.02; 127 and beyond: 15.
    distances = [0, 1, 7, 8, 11, 12, 16, 64, 90, 91, 127, 128, 5000]
    expected = [0, 1, 7, 8, 8, 9, 10, 14, 14, 15, 15, 15, 15]
    before = relative_buckets(-ops.array(distances))
    assert ops.convert_to_numpy(before).tolist() == expected
    after = ops.convert_to_numpy(relative_buckets(ops.array(distances[1:])))
    assert after.tolist() == [16 + bucket for bucket in expected[1:]]


def test_buckets_of_a_decoder_by_hand():
    # All 32 for the past: 16 of one distance, then 16 + floor(16 ln(d/16) / ln(8)).
    # d = 18: 16.91; 19: 17.32; 32: 21.33; 113: 31.04. The future has distance 0.
    distances = [5, 0, -15, -16, -18, -19, -32, -113, -4000]
    buckets = relative_buckets(ops.array(distances), bidirectional=False)
    assert ops.convert_to_numpy(buckets).tolist() == [0, 0, 15, 16, 16, 17, 21, 31, 31]


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize(("count", "longest"), [(32, 128), (8, 7), (16, 50)])
def test_buckets_are_those_of_transformers(bidirectional, count, longest):
    torch = pytest.importorskip("torch", reason="transformers' own function is the oracle")
    modeling = pytest.importorskip("transformers.models.t5.modeling_t5")
    distances = np.arange(-300, 301)
    expected = modeling.T5Attention._relative_position_bucket(
        torch.from_numpy(distances), bidirectional, count, longest
    )
    found = relative_buckets(ops.array(distances, "int32"), count, longest, bidirectional)
    np.testing.assert_array_equal(found, expected.numpy())


def test_a_relative_bias_depends_on_the_distance_alone():
    layer = RelativeBias(3, num_buckets=8, max_distance=6)
    layer.build()
    bias = ops.convert_to_numpy(layer(ops.arange(9), ops.arange(9)))[0]
    for head in range(3):
        for distance in range(-8, 9):
            assert len(set(np.diagonal(bias[head], distance))) == 1
    # Slots of a cache: the row of a query is that of the whole square.
    np.testing.assert_array_equal(layer(ops.array([4, 5]), ops.arange(9))[0], bias[:, 4:6])
    # Query 4 and key 3: distance -1, bucket 1. Key 5: +1, bucket 4 + 1.
    table = ops.convert_to_numpy(layer.embeddings)
    np.testing.assert_array_equal(bias[:, 4, 3], table[1])
    np.testing.assert_array_equal(bias[:, 4, 5], table[5])


def test_positions_of_padded_rows_by_hand():
    mask = ops.array([[0, 0, 1, 1, 1], [1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    expected = [[0, 0, 0, 1, 2], [0, 1, 2, 2, 2], [0, 1, 2, 3, 4]]
    assert ops.convert_to_numpy(positions_of(mask)).tolist() == expected
