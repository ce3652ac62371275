"""One vector for each text."""

import keras
import numpy as np
import pytest

from tests.cli import language_folders
from tfbig.interop import padding
from tfbig.interop.embedding import cosines, embed
from tfbig.models import (
    Attention,
    Block,
    Classifier,
    FeedForward,
    FirstToken,
    LearnedPositions,
    PreNorm,
    TextEncoder,
    TokenFront,
    Transformer,
    UnitLength,
)
from tfbig.models.positions import max_positions


class Letters:
    """A tokenizer of letters, between 1 and 2: a = 3, b = 4, ..."""

    def encode_batch(self, texts):
        return [[1, *(ord(letter) - 94 for letter in text), 2] for text in texts]

    def pad(self, batch):
        return padding.pad(batch, 0)


def encoder(pooling=None, head=None):
    keras.utils.set_random_seed(0)
    norm = keras.layers.LayerNormalization()
    block = Block(Attention(2, 4), FeedForward(16), PreNorm(norm))
    start = keras.initializers.RandomNormal(stddev=0.5)
    positions = LearnedPositions(6, 8, initializer=start)
    front = TokenFront(32, 8, positions, initializer=start)
    return TextEncoder(front, Transformer(block, 1, norm), pooling, head)


# Float32 sums of rows with padding and without.
TOLERANCE = dict(rtol=1e-4, atol=1e-6)


def test_a_language_models_vector_is_the_mean_of_its_last_states():
    model, tokenizer = language_folders.model(), language_folders.tokenizer()
    texts = ["the quick brown fox", "a", "hello world"]
    found = embed(model, tokenizer, texts, batch_size=2)
    for text, vector in zip(texts, found, strict=True):
        states = np.asarray(model.hidden(np.array([tokenizer.encode(text)])))
        np.testing.assert_allclose(vector, states[0].mean(0), **TOLERANCE)


@pytest.mark.parametrize("batch_size", [1, 2, 9])
def test_an_encoder_pools_as_it_says(batch_size):
    model = encoder(FirstToken(), UnitLength())
    texts = ["abcd", "", "ab", "abc"]
    found = embed(model, Letters(), texts, batch_size)
    assert found.shape == (4, 8) and found.dtype == np.float32
    for text, vector in zip(texts, found, strict=True):
        (ids,) = Letters().encode_batch([text])
        state = np.asarray(encoder()(np.array([ids])))[0, 0]
        np.testing.assert_allclose(vector, state / np.linalg.norm(state), **TOLERANCE)


def test_a_text_that_is_too_long_is_cut_and_keeps_its_end():
    model = encoder()
    assert max_positions(model.front) == 6
    long, same = embed(model, Letters(), ["abcdefgh", "abcd"])
    np.testing.assert_allclose(long, same, **TOLERANCE)
    cut, same = embed(model, Letters(), ["abcdefgh", "ab"], max_tokens=4)
    np.testing.assert_allclose(cut, same, **TOLERANCE)


def test_what_makes_no_vectors_is_refused():
    tokenizer = language_folders.tokenizer()
    with pytest.raises(ValueError, match="ends in a Classifier"):
        embed(encoder(FirstToken(), Classifier(2)), Letters(), ["a"])
    with pytest.raises(ValueError, match="this is a Sequential"):
        embed(keras.Sequential([keras.layers.Dense(2)]), Letters(), ["a"])
    with pytest.raises(ValueError, match=r"Text 1 \(''\) has no tokens"):
        embed(language_folders.model(), tokenizer, ["a", ""])
    with pytest.raises(ValueError, match="a list of texts"):
        embed(encoder(), Letters(), "abc")
    with pytest.raises(ValueError, match="1 or more"):
        embed(encoder(), Letters(), ["a"], batch_size=0)
    assert embed(encoder(), Letters(), []).shape == (0, 8)


def test_cosines_by_hand():
    # 3 x 4 + 4 x 3 = 24, over 5 x 5.
    found = cosines(np.array([3.0, 4.0]), np.array([[4.0, 3.0], [-3.0, -4.0]]))
    np.testing.assert_allclose(found, [0.96, -1])
