"""Packing against a naive oracle, place by place; no leak; the same batches for both drivers."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from tfbig.data import (
    TokenShards,
    TokensInMemory,
    evaluation_rows,
    packed,
    steps_per_epoch,
    write_shards,
)
from tfbig.data.rows import stream_pieces
from tfbig.training import Loop

EOS = 0
# Each token is another, so that a place in a row tells which token of which document it is.
documents_of_sizes = st.lists(st.integers(0, 14), min_size=1, max_size=9).map(
    lambda sizes: [
        [*range(100 * d + 1, 100 * d + 1 + size), EOS] for d, size in enumerate(sizes, 1)
    ]
)


def naive_rows(documents, length):
    """Rows of `(input, target, document, position)`, by appending one token after the other."""
    rows, row, begin = [], [], {}
    for number, ids in enumerate(documents):
        before = EOS
        for target in ids:
            begin.setdefault((len(rows), number), len(row))
            row.append((before, target, number, len(row) - begin[len(rows), number]))
            before = target
            if len(row) == length:
                rows.append(row)
                row = []
    return [*rows, row] if row else rows


def rows_of(dataset):
    """The places of each row that are no padding: `(input, target, segment, position, weight)`."""
    for inputs, targets, weights in dataset:
        ids, segments, positions = (
            inputs[name].numpy() for name in ("token_ids", "segment_ids", "positions")
        )
        columns = [ids, targets.numpy(), segments, positions, weights.numpy()]
        assert len({column.shape for column in columns}) == 1
        for row in range(len(ids)):
            places = [tuple(c[row, i].item() for c in columns) for i in range(ids.shape[1])]
            real = [place for place in places if place[2]]
            # Padding is at the end, and zero everywhere.
            assert all(place == (0, 0, 0, 0, 0.0) for place in places[len(real) :])
            if real:
                yield real


def with_segments(row):
    """The oracle's row with documents numbered 1, 2, ... within the row."""
    numbers = list(dict.fromkeys(document for _, _, document, _ in row))
    return [(i, t, numbers.index(d) + 1, p, 1.0) for i, t, d, p in row]


@settings(max_examples=20, deadline=None)
@given(documents_of_sizes, st.integers(1, 9), st.integers(1, 4), st.integers(0, 3))
def test_rows_are_those_of_the_naive_oracle(documents, length, batch_size, seed):
    source = TokensInMemory(documents, EOS)
    dataset = packed(source, length, batch_size, seed=seed)
    order = np.random.default_rng((seed, 0)).permutation(len(documents))
    expected = [with_segments(row) for row in naive_rows([documents[i] for i in order], length)]
    # The rows are shuffled.
    assert sorted(rows_of(dataset)) == sorted(expected)
    assert dataset.cardinality() == steps_per_epoch(source, length, batch_size)
    assert len(list(dataset)) == -(-len(expected) // batch_size)


@settings(max_examples=20, deadline=None)
@given(documents_of_sizes, st.integers(1, 9), st.integers(1, 4), st.data())
def test_evaluation_scores_each_token_once_with_its_context(documents, length, batch_size, data):
    stride = data.draw(st.integers(1, length))
    source = TokensInMemory(documents, EOS)
    rows = list(rows_of(evaluation_rows(source, length, batch_size, stride)))
    # An end token is told by the one before it; an empty document's follows the start token.
    scored = [(i, t) for row in rows for i, t, _, _, weight in row if weight]
    expected = [pair for row in naive_rows(documents, 10_000) for *pair, _, _ in row]
    assert sorted(scored) == sorted(map(tuple, expected))
    for row in rows:
        for _, places in itertools.groupby(row, key=lambda place: place[2]):
            inputs, targets, _, positions, weights = zip(*places, strict=True)
            assert positions == tuple(range(len(positions)))
            assert inputs[1:] == targets[:-1]  # one document, without a gap
            # No window is there for nothing; a later one begins with what is known.
            assert weights.index(1) == (0 if inputs[0] == EOS else length - stride)


def test_packing_by_hand():
    """The docstring's example of `tfbig.data.rows`, cut at 4."""
    source = TokensInMemory([[11, 12, EOS], [21, 22, EOS]], EOS)
    pieces = stream_pieces(source, np.array([0, 1]), 4)
    assert pieces.places.tolist() == [0, 3, 4]
    rows = sorted(rows_of(packed(source, 4, 2)), key=len)
    # In either order of two alike documents: 4 places, then 2.
    assert [[place[2:4] for place in row] for row in rows] == [
        [(1, 0), (1, 1)],
        [(1, 0), (1, 1), (1, 2), (2, 0)],
    ]
    first, second = (11, 21) if rows[1][0][1] == 11 else (21, 11)
    assert [place[:2] for place in rows[1]] == [
        (EOS, first), (first, first + 1), (first + 1, EOS), (EOS, second)
    ]  # fmt: skip
    assert [place[:2] for place in rows[0]] == [(second, second + 1), (second + 1, EOS)]


def test_windows_by_hand():
    source = TokensInMemory([[1, 2, 3, 4, 5, 6, EOS], [9, EOS]], EOS)
    rows = list(rows_of(evaluation_rows(source, length=4, batch_size=1, stride=2)))
    assert [[place[1] for place in row] for row in rows] == [
        [1, 2, 3, 4],
        [3, 4, 5, 6],
        [5, 6, EOS],
    ] + [[9, EOS]]
    assert [[place[4] for place in row] for row in rows] == [
        [1] * 4,
        [0, 0, 1, 1],
        [0, 0, 1],
        [1, 1],
    ]


def test_a_start_token_of_its_own():
    source = TokensInMemory([[11, EOS], [21, EOS]], EOS)
    for dataset in (packed(source, 4, 1, start_id=7), evaluation_rows(source, 4, 1, start_id=7)):
        ids = next(iter(dataset))[0]["token_ids"].numpy().tolist()[0]
        assert ids[0] == ids[2] == 7 and {ids[1], ids[3]} == {11, 21}


def test_seeds_repeat_and_epochs_differ(tmp_path):
    rng = np.random.default_rng(0)
    corpus = [(str(i), "x" * int(n)) for i, n in enumerate(rng.integers(0, 50, 60))]
    options = {"eos_id": EOS, "vocabulary_size": 1000, "tokenizer_hash": ""}
    shards = write_shards(
        corpus, lambda text: rng.integers(1, 1000, len(text)), tmp_path, shard_tokens=200, **options
    )
    steps = steps_per_epoch(shards, 8, 5)

    def batches(**arguments):
        return [np.stack([*inputs.values(), targets]) for inputs, targets, _ in packed(**arguments)]

    arguments = {"source": TokenShards(tmp_path), "length": 8, "batch_size": 5}
    two = batches(**arguments, epochs=2)
    assert len(two) == 2 * steps
    assert all(map(np.array_equal, two, batches(**arguments, epochs=2)))
    first, second = np.concatenate(two[:steps], 1), np.concatenate(two[steps:], 1)
    assert not np.array_equal(first, second)
    # The order differs, and the tokens do not.
    flat = sorted(np.concatenate(list(shards.documents())).tolist())
    for epoch in (first, second):
        assert sorted(epoch[3][epoch[1] > 0].tolist()) == flat
    assert not np.array_equal(first, np.concatenate(batches(**arguments, seed=1), 1))
    # One epoch is the beginning of two, and of a dataset without end.
    assert all(map(np.array_equal, two[:steps], batches(**arguments)))
    endless = packed(**arguments, epochs=None).skip(steps).take(1)
    assert np.array_equal(next(iter(endless))[1].numpy(), two[steps][3])
    # The rows of a long document are spread over the epoch.
    long = TokensInMemory([list(range(1, 1000))], EOS)
    targets = next(iter(packed(long, 8, 4)))[1].numpy()
    assert (np.abs(np.diff(targets[:, 0])) > 8).any()


class Bigram(keras.Model):
    """The smallest language model that can be called on a packed batch."""

    def __init__(self):
        super().__init__()
        self.embedding = keras.layers.Embedding(16, 4)
        self.head = keras.layers.Dense(16)

    def call(self, inputs):
        same = ops.cast(inputs["segment_ids"] > 0, "float32")[..., None]
        return self.head(self.embedding(inputs["token_ids"]) * same)


def test_both_drivers_train_on_the_same_batches():
    rng = np.random.default_rng(0)
    source = TokensInMemory(
        [[*rng.integers(1, 16, n).tolist(), EOS] for n in (3, 20, 7, 11, 1)], EOS
    )
    steps = steps_per_epoch(source, 6, 3)
    assert steps == 3
    models = [Bigram(), Bigram()]
    for model in models:
        model.compile(
            keras.optimizers.SGD(0.5),
            keras.losses.SparseCategoricalCrossentropy(
                from_logits=True, reduction="mean_with_sample_weight"
            ),
        )
        model(next(iter(packed(source, 6, 3)))[0])
    models[1].set_weights(models[0].get_weights())
    dataset = packed(source, 6, 3, epochs=3)
    histories = [
        driver(dataset, epochs=3, steps_per_epoch=steps, shuffle=False, verbose=0).history["loss"]
        for driver in (models[0].fit, Loop(models[1]).fit)
    ]
    assert histories[0][-1] < histories[0][0]
    # Float32, nine steps, one order of batches: another order differs by 1e-2.
    np.testing.assert_allclose(histories[1], histories[0], rtol=1e-6)
    for a, b in zip(models[0].get_weights(), models[1].get_weights(), strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-6)


def test_all_shapes_are_static():
    source = TokensInMemory([[1, 2, EOS]], EOS)
    for dataset in (packed(source, 4, 3), evaluation_rows(source, 4, 3)):
        spec = dataset.element_spec
        assert all(leaf.shape == (3, 4) for leaf in tf.nest.flatten(spec))
        assert [leaf.dtype for leaf in tf.nest.flatten(spec)] == [tf.int32] * 4 + [tf.float32]


def test_wrong_numbers():
    source = TokensInMemory([[1, EOS]], EOS)
    for name in ("length", "batch_size", "epochs"):
        with pytest.raises(ValueError, match=f"{name} must be at least 1, and was 0"):
            packed(source, **({"length": 4, "batch_size": 2} | {name: 0}))
    for stride in (0, 5):
        with pytest.raises(ValueError, match=f"length 4, and was {stride}"):
            evaluation_rows(source, 4, 2, stride)
