"""Attention against its definition in loops, against Keras's own layers, in pieces and packed."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from tfbig.models import (
    Attention,
    Block,
    Causal,
    DotProduct,
    GatedFeedForward,
    KeyValueCache,
    PreNorm,
    RMSNorm,
    Rotary,
    SoftCappedDotProduct,
    Transformer,
    rotary_frequencies,
)

BATCH, TIME, DIM, HEADS, HEAD_DIM = 2, 6, 10, 4, 8
# The same sums in float64, in another order.
EXACT = {"rtol": 1e-10, "atol": 1e-12}


@pytest.fixture
def _float64():
    keras.config.set_dtype_policy("float64")  # put back by the fixture of conftest.py


def draws(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def randomize(layer: keras.Layer, seed: int = 1) -> None:
    """Every weight, biases and norms too: what is left at 0 or 1 could be missing unseen."""
    draw = np.random.default_rng(seed)
    for weight in layer.weights:
        weight.assign(draw.normal(size=weight.shape))


def turned(vector: np.ndarray, position: int, frequencies: tuple[float, ...]) -> np.ndarray:
    half = len(frequencies)
    pairs = (vector[:half] + 1j * vector[half:]) * np.exp(1j * position * np.array(frequencies))
    return np.concatenate([pairs.real, pairs.imag])


def by_definition(
    layer: Attention,
    x: np.ndarray,
    memory: np.ndarray,
    sees: np.ndarray,
    bias: np.ndarray,
    scale: float = HEAD_DIM**-0.5,
    cap: float | None = None,
) -> np.ndarray:
    """Attention one query at a time; `sees` and `bias` are `(batch, heads, queries, keys)`."""

    def projected(name: str, row: np.ndarray) -> np.ndarray:
        dense = getattr(layer, name)
        out = row @ ops.convert_to_numpy(dense.kernel)
        return out + ops.convert_to_numpy(dense.bias) if dense.use_bias else out

    def head(name: str, row: np.ndarray, number: int, position: int) -> np.ndarray:
        vector = projected(name, row)[number * HEAD_DIM : (number + 1) * HEAD_DIM]
        if name != "value" and layer.query_norm is not None:
            norm = getattr(layer, f"{name}_norm")
            root = np.sqrt(np.mean(vector**2) + norm.epsilon)
            vector = vector / root * ops.convert_to_numpy(norm.scale)
        if name != "value" and layer.rotary is not None:
            vector = turned(vector, position, layer.rotary.frequencies)
        return vector

    group = layer.num_heads // layer.num_key_value_heads
    result = np.zeros((*x.shape[:2], DIM))
    for b in range(x.shape[0]):
        for q in range(x.shape[1]):
            mixed = []
            for h in range(layer.num_heads):
                query = head("query", x[b, q], h, q)
                scores, values = [], []
                for k in range(memory.shape[1]):
                    if not sees[b, h, q, k]:
                        continue
                    score = scale * query @ head("key", memory[b, k], h // group, k)
                    if cap is not None:
                        score = cap * np.tanh(score / cap)
                    scores.append(score + bias[b, h, q, k])
                    values.append(head("value", memory[b, k], h // group, k))
                weights = np.exp(np.array(scores) - max(scores))
                mixed.append(weights / weights.sum() @ np.array(values))
            result[b, q] = projected("output_projection", np.concatenate(mixed))
    return result


ALL_SEE = np.ones((BATCH, HEADS, TIME, TIME), bool)
NO_BIAS = np.zeros((BATCH, HEADS, TIME, TIME))
PADDED = ALL_SEE & (np.arange(TIME) < np.array([TIME, 4])[:, None, None, None])


@pytest.mark.usefixtures("_float64")
@pytest.mark.parametrize("key_value_heads", [4, 2, 1])
def test_heads_and_groups_by_definition(key_value_heads):
    layer = Attention(HEADS, HEAD_DIM, key_value_heads, biases=("query", "key", "value", "output"))
    x = draws(BATCH, TIME, DIM)
    layer.build(x.shape)
    randomize(layer)
    expected = by_definition(layer, x, x, ALL_SEE, NO_BIAS)
    np.testing.assert_allclose(layer(x), expected, **EXACT)


@pytest.mark.usefixtures("_float64")
@pytest.mark.parametrize("window", [None, 1, 3])
def test_causal_windowed_and_padded_by_definition(window):
    layer = Attention(HEADS, HEAD_DIM, 2, sees=Causal(window))
    x = draws(BATCH, TIME, DIM)
    layer.build(x.shape)
    ahead = np.arange(TIME)[:, None] - np.arange(TIME)
    sees = PADDED & (ahead >= 0) & (ahead < (window or TIME))
    # A query whose window is all padding has no meaning: not compared.
    compared = sees.any(axis=(1, 3))
    expected = by_definition(layer, x, x, np.where(compared[:, None, :, None], sees, True), NO_BIAS)
    found = ops.convert_to_numpy(layer(x, visible=PADDED[:, :1, :1]))
    np.testing.assert_allclose(found[compared], expected[compared], **EXACT)
    assert compared.sum() > BATCH * TIME / 2


@pytest.mark.usefixtures("_float64")
def test_bias_norms_cap_and_rotary_by_definition():
    layer = Attention(
        HEADS,
        HEAD_DIM,
        2,
        biases=("query", "value"),
        rotary=Rotary(rotary_frequencies(HEAD_DIM, 100.0)),
        score=SoftCappedDotProduct(cap=1.5, scale=0.7),
        sees=Causal(),
        norm=RMSNorm(),
    )
    x, bias = draws(BATCH, TIME, DIM), draws(BATCH, HEADS, TIME, TIME, seed=2)
    layer.build(x.shape)
    randomize(layer)
    found = layer(x, visible=PADDED, bias=bias, positions=ops.arange(TIME)[None])
    sees = PADDED & np.tri(TIME, dtype=bool)
    expected = by_definition(layer, x, x, sees, bias, scale=0.7, cap=1.5)
    np.testing.assert_allclose(found, expected, **EXACT)


@pytest.mark.usefixtures("_float64")
def test_a_memory_of_other_width_by_definition():
    layer = Attention(HEADS, HEAD_DIM, 2, score=DotProduct(scale=1.0))
    x, memory = draws(BATCH, TIME, DIM), draws(BATCH, 3, 7, seed=2)
    layer.build(x.shape, memory.shape)
    sees = np.ones((BATCH, HEADS, TIME, 3), bool)
    expected = by_definition(layer, x, memory, sees, np.zeros(sees.shape), scale=1.0)
    np.testing.assert_allclose(layer(x, memory), expected, **EXACT)


@pytest.mark.parametrize("causal", [True, False])
def test_as_keras_multi_head_attention(causal):
    x, memory = draws(2, TIME, DIM).astype("float32"), draws(2, TIME, DIM, seed=2).astype("float32")
    theirs = keras.layers.MultiHeadAttention(HEADS, HEAD_DIM)
    biases = ("query", "key", "value", "output")
    ours = Attention(HEADS, HEAD_DIM, biases=biases)
    theirs.build(x.shape, memory.shape, memory.shape)
    ours.build(x.shape, memory.shape)
    randomize(theirs)
    carry(theirs, ours)
    mask = np.tri(TIME, dtype=bool) if causal else None
    expected = theirs(x, memory, attention_mask=mask if mask is None else mask[None])
    # Numbers up to 100, sums of 32 in float32.
    np.testing.assert_allclose(ours(x, memory, visible=mask), expected, rtol=1e-4, atol=2e-4)


@pytest.mark.parametrize("key_value_heads", [4, 2, 1])
def test_as_keras_grouped_query_attention(key_value_heads):
    x = draws(2, TIME, DIM).astype("float32")
    theirs = keras.layers.GroupQueryAttention(HEAD_DIM, HEADS, key_value_heads)
    ours = Attention(
        HEADS,
        HEAD_DIM,
        key_value_heads,
        biases=("query", "key", "value", "output"),
        sees=Causal(),
    )
    theirs.build(x.shape, x.shape)
    ours.build(x.shape)
    randomize(theirs)
    carry(theirs, ours)
    expected = theirs(x, x, use_causal_mask=True)
    np.testing.assert_allclose(ours(x), expected, rtol=1e-4, atol=2e-4)


def carry(theirs: keras.Layer, ours: Attention) -> None:
    """Keras keeps heads and dimensions on two axes, and the same order of weights."""
    for source, target in zip(theirs.weights, ours.weights, strict=True):
        assert source.path.split("/")[-1] == target.path.split("/")[-1]
        target.assign(ops.reshape(source, target.shape))


def stack(window: int | None = None, **kwargs: object) -> Transformer:
    attention = Attention(
        HEADS,
        HEAD_DIM,
        2,
        rotary=Rotary(rotary_frequencies(HEAD_DIM)),
        sees=Causal(window),
        norm=RMSNorm(),
    )
    block = Block(attention, GatedFeedForward(16), PreNorm(RMSNorm()))
    layer = Transformer(block, 2, RMSNorm(), **kwargs)
    layer.build((None, None, DIM))
    return layer


@pytest.mark.usefixtures("_float64")
@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("sizes", [(1, 1, 7), (4, 1, 3, 1)])
def test_a_cache_changes_nothing(window, sizes):
    layer, x = stack(window), draws(2, 9, DIM)
    expected = ops.convert_to_numpy(layer(x))
    arrays, start = None, 0
    for size in sizes:
        cache = KeyValueCache(11, start, arrays)
        found = layer(x[:, start : start + size], cache=cache)
        np.testing.assert_allclose(found, expected[:, start : start + size], **EXACT)
        arrays, start = cache.arrays, start + size


@pytest.mark.usefixtures("_float64")
def test_packed_documents_are_as_rows_of_their_own():
    layer, lengths = stack(), (4, 1, 5)
    documents = [draws(1, length, DIM, seed=length) for length in lengths]
    found = layer(
        np.concatenate(documents, axis=1),
        positions=ops.array([[place for length in lengths for place in range(length)]]),
        segment_ids=ops.array([np.repeat([1, 2, 3], lengths)]),
    )
    expected = np.concatenate([layer(document) for document in documents], axis=1)
    np.testing.assert_allclose(found, expected, **EXACT)


@pytest.mark.usefixtures("_float64")
def test_left_padding_changes_nothing():
    layer, x = stack(), draws(1, 5, DIM)
    padded = np.concatenate([np.full((1, 3, DIM), 9.0), x], axis=1)
    mask = np.array([[0, 0, 0, 1, 1, 1, 1, 1]])
    positions = np.maximum(np.cumsum(mask, axis=1) - 1, 0)
    found = layer(padded, positions=positions, padding_mask=mask)[:, 3:]
    np.testing.assert_allclose(found, layer(x), **EXACT)


@pytest.mark.usefixtures("_float64")
def test_the_gradient_by_finite_differences():
    layer = stack(window=3).blocks[0]
    x, weights = draws(2, 5, DIM), draws(2, 5, DIM, seed=2)
    positions = ops.arange(5)[None]
    for variable in layer.weights:  # off the start, where norms are one
        variable.assign_add(0.1 * draws(*variable.shape, seed=3))

    def loss() -> tf.Tensor:
        return tf.reduce_sum(layer(x, positions=positions) * weights)

    with tf.GradientTape() as tape:
        value = loss()
    gradients = tape.gradient(value, layer.trainable_variables)
    for number, (variable, gradient) in enumerate(
        zip(layer.trainable_variables, gradients, strict=True)
    ):
        direction, start = draws(*variable.shape, seed=number), variable.numpy()
        step = 1e-5
        variable.assign(start + step * direction)
        above = loss()
        variable.assign(start - step * direction)
        slope = (above - loss()) / (2 * step)
        variable.assign(start)
        # The error of the difference: step^2 and rounding / step, both about 1e-10.
        np.testing.assert_allclose(
            tf.reduce_sum(gradient * direction), slope, rtol=1e-6, atol=1e-7, err_msg=variable.path
        )


@pytest.mark.usefixtures("_float64")
def test_a_query_that_may_look_nowhere_takes_the_mean():
    layer, x = Attention(HEADS, HEAD_DIM), draws(1, 3, DIM)
    found = layer(x, visible=np.zeros((1, 1, 1, 3), bool))
    mean = ops.mean(layer.value(x), axis=1, keepdims=True)
    expected = ops.broadcast_to(layer.output_projection(mean), (1, 3, DIM))
    np.testing.assert_allclose(found, expected, **EXACT)


@pytest.mark.usefixtures("_float64")
def test_a_single_token_sees_itself():
    # Without the warning of Keras's softmax, which the tests would take for an error.
    layer, x = Attention(HEADS, HEAD_DIM), draws(2, 1, DIM)
    np.testing.assert_allclose(layer(x), layer.output_projection(layer.value(x)), **EXACT)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_key_value_heads": 3}, "multiple of num_key_value_heads"),
        ({"biases": ("query", "keys")}, r"\['keys'\] are none of"),
    ],
)
def test_wrong_arguments_are_told(arguments, message):
    with pytest.raises(ValueError, match=message):
        Attention(HEADS, HEAD_DIM, **arguments)
