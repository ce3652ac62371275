"""The decoder from a few numbers: its start, its parameters, packed rows, and taps by path."""

import keras
import numpy as np
import pytest

from tfbig.models import MixtureOfExperts, language_model
from tfbig.training import tap

IDS = np.random.default_rng(0).integers(0, 11, (2, 6)).astype("int32")


@pytest.fixture
def model():
    keras.utils.set_random_seed(3)
    return language_model(11, num_layers=2, num_heads=2, hidden_dim=8, num_key_value_heads=1)


def test_the_parameters_by_hand(model):
    model.build()
    # 8 x 8 for queries and output, 8 x 4 for keys and values; three matrices of 8 x 16; two norms.
    block = 2 * 64 + 2 * 32 + 3 * 8 * 16 + 2 * 8
    assert model.count_params() == 11 * 8 + 2 * block + 8


@pytest.mark.parametrize("experts", [None, MixtureOfExperts(3, 2, 5)], ids=["dense", "experts"])
def test_the_start_does_not_depend_on_when_it_is_built(experts):
    """Initializers draw their seeds in the constructor, as Keras's own layers do."""
    weights = []
    for lazily in (True, False):
        keras.utils.set_random_seed(3)
        model = language_model(11, 1, 2, 8, feed_forward=experts)
        if lazily:
            language_model(11, 1, 2, 8)  # draws seeds in between
            model(IDS)
        else:
            model.build()
        weights.append(model.get_weights())
    for a, b in zip(*weights, strict=True):
        np.testing.assert_array_equal(a, b)


def test_packed_documents_are_as_documents_alone(model):
    packed = {
        "token_ids": IDS[:1],
        "segment_ids": np.array([[1, 1, 2, 2, 2, 2]]),
        "positions": np.array([[0, 1, 0, 1, 2, 3]]),
    }
    together = keras.ops.convert_to_numpy(model(packed))
    alone = [keras.ops.convert_to_numpy(model(ids)) for ids in (IDS[:1, :2], IDS[:1, 2:])]
    # 1e-6: the same sums, some over zeros.
    np.testing.assert_allclose(together, np.concatenate(alone, axis=1), atol=1e-6)


def test_attention_weights_are_tapped_by_the_path_of_their_block(model):
    model.build()
    with tap(model, r"block_1/attention/weights$") as seen:
        model(IDS)
    (path,) = seen
    weights = keras.ops.convert_to_numpy(seen[path][0])
    assert path == "causal_lm/transformer/block_1/attention/weights"
    assert weights.shape == (2, 1, 2, 6, 6)
    np.testing.assert_allclose(weights.sum(-1), 1.0, rtol=1e-6)
    assert np.triu(weights[0, 0, 0], 1).max() == 0.0


@pytest.mark.parametrize("hidden_dim", [9, 6])
def test_heads_must_divide_the_width_evenly(hidden_dim):
    with pytest.raises(ValueError, match="whole and even"):
        language_model(11, 1, 2, hidden_dim)


def test_wrong_inputs_say_what_is_expected(model):
    with pytest.raises(ValueError, match=r"\['ids'\].*token_ids"):
        model({"ids": IDS})
