"""Poolings, the front that counts its tokens, and where dropout acts: numbers by hand."""

import keras
import numpy as np
import pytest
from keras import ops

from tfbig.models import (
    Classifier,
    CountingTokenFront,
    EndToken,
    FeedForward,
    FirstToken,
    GatedFeedForward,
    LastToken,
    LearnedPositions,
    MeanToken,
    TextEncoder,
    TokenFront,
    Transform,
    Transformer,
)
from tfbig.models.transformer import Block, PreNorm

# Row 0 holds 0, 1, 2, 3 and row 1 holds 4, 5, 6, 7.
HIDDEN = np.arange(8.0, dtype="float32").reshape(2, 4, 1)
IDS = np.array([[5, 9, 7, 7], [7, 5, 8, 1]])
MASK = np.array([[1, 1, 1, 0], [0, 1, 1, 1]])


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [
        (FirstToken(), [0, 4]),
        (LastToken(), [2, 7]),
        (MeanToken(), [1, 6]),
        # The first 7, although padding may have the same id.
        (EndToken(7), [2, 4]),
        # The highest ids are 9 and 8.
        (EndToken(None), [1, 6]),
        # None there: the first token, as in transformers.
        (EndToken(3), [0, 4]),
    ],
)
def test_each_pooling_takes_its_token(pooling, expected):
    copy = type(pooling).from_config(pooling.get_config())
    for part in (pooling, copy):
        vectors = part(HIDDEN, MASK, IDS)
        np.testing.assert_array_equal(vectors, np.array(expected, "float32")[:, None])


def test_without_a_mask_all_tokens_count():
    np.testing.assert_array_equal(LastToken()(HIDDEN, None), [[3], [7]])
    np.testing.assert_array_equal(MeanToken()(HIDDEN, None), [[1.5], [5.5]])


def test_end_token_wants_ids():
    with pytest.raises(ValueError, match="use it in a TextEncoder"):
        EndToken(7)(HIDDEN, MASK)


def test_text_encoder_gives_its_ids_to_the_pooling():
    seen = []

    class Spy(FirstToken):
        def call(self, hidden, padding_mask=None, token_ids=None):
            seen.append(token_ids)
            return super().call(hidden)

    norm = keras.layers.LayerNormalization()
    block = Block(_attention(), FeedForward(4), PreNorm(norm))
    model = TextEncoder(TokenFront(10, 4), Transformer(block, 1), Spy())
    model({"token_ids": IDS})
    model(IDS)
    assert all(np.array_equal(ids, IDS) for ids in seen) and len(seen) == 2


def _attention():
    from tfbig.models import Attention

    return Attention(1, 4)


def _counting_front():
    front = CountingTokenFront(10, 2, LearnedPositions(3, 2, offset=2), pad_id=1)
    front.build()
    # Tokens add nothing, so that the front's output is the table's row: (r, 10 r) for row r.
    front.tokens.embeddings.assign(np.zeros((10, 2)))
    front.positions.embeddings.assign(np.arange(5.0)[:, None] * np.array([1.0, 10.0]))
    return front


@pytest.mark.parametrize(
    ("ids", "mask", "rows"),
    [
        ([[5, 6, 7]], None, [2, 3, 4]),
        ([[5, 6, 1]], None, [2, 3, 1]),
        ([[1, 5, 6]], None, [1, 2, 3]),
        # The mask counts, where there is one: 1 is a token and 7 is none.
        ([[1, 6, 7]], [[1, 1, 0]], [2, 3, 1]),
    ],
)
def test_positions_count_tokens_only(ids, mask, rows):
    front = _counting_front()
    mask = None if mask is None else np.array(mask)
    x = front(np.array(ids), padding_mask=mask)
    np.testing.assert_array_equal(x[0, :, 0], rows)
    np.testing.assert_array_equal(x[0, :, 1], 10 * np.array(rows))


def test_given_positions_are_taken():
    x = _counting_front()(np.array([[1, 5]]), np.array([[0, 2]]))
    np.testing.assert_array_equal(x[0, :, 0], [2, 4])


def test_counting_front_is_written_and_made_again():
    front = _counting_front()
    config = CountingTokenFront.from_config(front.get_config()).get_config()
    assert config == front.get_config() and config["pad_id"] == 1


def test_an_ordinary_front_counts_slots():
    front = TokenFront(10, 2, LearnedPositions(5, 2))
    front.build()
    front.tokens.embeddings.assign(np.zeros((10, 2)))
    front.positions.embeddings.assign(np.arange(5.0)[:, None] * np.ones(2))
    x = front(np.array([[1, 5, 6]]), padding_mask=np.array([[0, 1, 1]]))
    np.testing.assert_array_equal(x[0, :, 0], [0, 1, 2])


def _dropped(layer, x):
    """The share of zeros in training; in inference there is none."""
    assert np.all(ops.convert_to_numpy(layer(x, training=False)) != 0)
    return float(np.mean(ops.convert_to_numpy(layer(x, training=True)) == 0))


@pytest.mark.parametrize("kind", [FeedForward, GatedFeedForward])
def test_output_dropout_is_of_what_comes_out(kind):
    layer = kind(8, "silu", output_dropout=0.5)
    # 64,000 draws: the share is within 0.5 +- 0.01 but for once in a million.
    assert _dropped(layer, ops.ones((100, 10, 64))) == pytest.approx(0.5, abs=0.01)
    assert kind.from_config(layer.get_config()).output_dropout.rate == 0.5


def test_transform_drops_what_comes_in():
    layer = Transform(64, "linear", dropout=0.5)
    layer.build((None, 64))
    layer.dense.kernel.assign(np.eye(64))
    assert _dropped(layer, ops.ones((1000, 64))) == pytest.approx(0.5, abs=0.01)
    assert Transform.from_config(layer.get_config()).dropout.rate == 0.5


def test_transform_in_a_classifier_knows_that_it_is_trained():
    head = Classifier(64, Transform(64, "linear", dropout=0.5))
    head.build((None, 64))
    for dense in (head.transform.dense, head.logits):
        dense.kernel.assign(np.eye(64))
    assert _dropped(head, ops.ones((1000, 64))) == pytest.approx(0.5, abs=0.01)
