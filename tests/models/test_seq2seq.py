"""Encoders with decoders: a step of generation, padding of the source, what a decoder reads."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfbig.interop.families import marian, t5, whisper
from tfbig.models import KeyValueCache, SpeechEncoder
from tfbig.models.seq2seq import shifted_right

# The families' own builders: relative, sinusoidal and learned positions in the decoder.
T5 = {
    "model_type": "t5",
    "vocab_size": 50,
    "d_model": 16,
    "d_kv": 6,
    "d_ff": 24,
    "num_layers": 2,
    "num_heads": 2,
    # So that rows of nine tokens reach the logarithmic buckets and the last one.
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 7,
}
BART = {
    "vocab_size": 50,
    "d_model": 16,
    "encoder_layers": 2,
    "encoder_attention_heads": 4,
    "encoder_ffn_dim": 24,
    "decoder_layers": 2,
    "decoder_attention_heads": 2,
    "decoder_ffn_dim": 20,
    "init_std": 0.3,  # 0.02 gives logits so small that an error would hide in the tolerance
}
WHISPER = {"num_mel_bins": 5, "max_source_positions": 6, "max_target_positions": 9}
BUILDERS = {
    "t5": lambda: t5.build(T5),
    "marian": lambda: marian.build({"model_type": "marian", **BART, "scale_embedding": True}),
    "whisper": lambda: whisper.build({"model_type": "whisper", **BART, **WHISPER}),
}
# Sums of at most 24 float32 numbers of size 1, in another order.
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


@functools.cache
def network(name: str):
    model = BUILDERS[name]()
    model.build()
    return model


def batch(name: str, source_time: int = 7, target_time: int = 9) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(0)
    inputs = {"decoder_token_ids": draw.integers(0, 50, (2, target_time))}
    if name == "whisper":
        return inputs | {"encoder_features": draw.normal(size=(2, 12, 5)).astype("float32")}
    return inputs | {"encoder_token_ids": draw.integers(0, 50, (2, source_time))}


@pytest.mark.parametrize("name", BUILDERS)
def test_a_cache_changes_nothing(name):
    model, inputs = network(name), batch(name)
    memory = model.encode(inputs)
    expected = keras.ops.convert_to_numpy(model(inputs))
    arrays, start = None, 0
    for count in (1, 5, 3):
        cache = KeyValueCache(9, start, arrays)
        part = inputs["decoder_token_ids"][:, start : start + count]
        logits = model.decode({**inputs, "decoder_token_ids": part}, memory, cache)
        np.testing.assert_allclose(logits, expected[:, start : start + count], **CLOSE)
        arrays, start = cache.arrays, start + count
    assert start == expected.shape[1]


@pytest.mark.parametrize("name", ["t5", "whisper"])
def test_one_compiled_step_serves_a_whole_generation(name):
    model, inputs = network(name), batch(name)
    memory = model.encode(inputs)
    expected = keras.ops.convert_to_numpy(model(inputs))
    traces = 0

    @tf.function
    def step(token_ids, index, arrays):
        nonlocal traces
        traces += 1
        cache = KeyValueCache(12, index, arrays)  # longer than the row: empty slots are not seen
        logits = model.decode({**inputs, "decoder_token_ids": token_ids}, memory, cache)
        return logits, cache.arrays

    first = KeyValueCache(12)
    model.decode({**inputs, "decoder_token_ids": inputs["decoder_token_ids"][:, :1]}, memory, first)
    arrays = first.arrays
    for index in range(1, 9):
        token_ids = tf.constant(inputs["decoder_token_ids"][:, index : index + 1])
        logits, arrays = step(token_ids, tf.constant(index), arrays)
        np.testing.assert_allclose(logits[:, 0], expected[:, index], **CLOSE)
    assert traces == 1


@pytest.mark.parametrize("name", ["t5", "marian"])
def test_padding_of_the_source_is_not_seen(name):
    model, inputs = network(name), batch(name)
    expected = model(inputs)
    mask = np.pad(np.ones((2, 7), int), ((0, 0), (0, 4)))
    for filling in (0, 33):
        source = np.pad(inputs["encoder_token_ids"], ((0, 0), (0, 4)), constant_values=filling)
        padded = {**inputs, "encoder_token_ids": source, "encoder_padding_mask": mask}
        np.testing.assert_allclose(model(padded), expected, **CLOSE)
    # And without the mask it is: the test can fail.
    assert np.abs(model({**inputs, "encoder_token_ids": source}) - expected).max() > 1e-2


@pytest.mark.parametrize("name", BUILDERS)
def test_a_decoder_sees_what_came_before_and_all_of_the_source(name):
    model, inputs = network(name), batch(name)
    logits = keras.ops.convert_to_numpy(model(inputs))
    other = dict(inputs, decoder_token_ids=inputs["decoder_token_ids"].copy())
    other["decoder_token_ids"][:, 5] = (other["decoder_token_ids"][:, 5] + 1) % 50
    changed = np.abs(model(other) - logits).max(axis=(0, 2))
    np.testing.assert_allclose(changed[:5], 0, atol=1e-6)
    assert (changed[5:] > 1e-4).all()
    source = next(name for name in inputs if name.startswith("encoder"))
    other = dict(inputs)
    other[source] = inputs[source].copy()
    other[source][:, -1] = other[source][:, -2]
    assert (np.abs(model(other) - logits).max(axis=(0, 2)) > 1e-5).all()


@pytest.mark.parametrize("name", BUILDERS)
def test_a_network_is_made_again_from_its_config(name):
    model, inputs = network(name), batch(name)
    again = type(model).from_config(model.get_config())
    again.build()
    again.set_weights(model.get_weights())
    np.testing.assert_array_equal(again(inputs), model(inputs))
    assert [v.trainable for v in again.weights] == [v.trainable for v in model.weights]


def test_a_network_is_saved_by_keras(tmp_path):
    model, inputs = network("t5"), batch("t5")
    model.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(
        keras.models.load_model(tmp_path / "model.keras")(inputs), model(inputs)
    )


def test_t5_drops_after_the_last_norm_in_training_only():
    model, inputs = network("t5"), batch("t5")
    at_rest = keras.ops.convert_to_numpy(model.encode(inputs))
    assert (at_rest == 0).mean() == 0
    # A tenth of 224 numbers, +- 4 standard deviations.
    dropped = keras.ops.convert_to_numpy(model.encode(inputs, training=True)) == 0
    assert 0.02 < dropped.mean() < 0.19


def test_what_a_decoder_reads_by_hand():
    labels = np.array([[7, 8, 9, 1], [5, 1, -100, -100]])
    read = keras.ops.convert_to_numpy(shifted_right(labels, start_id=2, pad_id=0))
    assert read.tolist() == [[2, 7, 8, 9], [2, 5, 1, 0]]
    assert read.dtype == labels.dtype


def test_what_a_decoder_reads_is_as_in_transformers():
    pytest.importorskip("torch", reason="transformers' own function is the oracle")
    modeling = pytest.importorskip("transformers.models.marian.modeling_marian")
    import torch

    labels = np.random.default_rng(0).integers(0, 50, (3, 6))
    labels[:, 4:] = -100
    expected = modeling.shift_tokens_right(torch.from_numpy(labels), 49, 48).numpy()
    np.testing.assert_array_equal(shifted_right(labels, 48, 49), expected)


def test_a_source_is_asked_for():
    model = network("t5")
    with pytest.raises(ValueError, match="encoder_token_ids.*decoder_token_ids"):
        model({"decoder_token_ids": np.ones((1, 2), int)})


def test_whispers_encoder_is_a_network_of_its_own_with_the_same_weights():
    model, inputs = network("whisper"), batch("whisper")
    encoder = SpeechEncoder(model.front, model.encoder)
    found = encoder(inputs["encoder_features"])
    np.testing.assert_array_equal(found, model.encode(inputs))
    assert encoder.weights[0] is model.front.weights[0]


def test_more_frames_or_tokens_than_positions_are_refused():
    model, inputs = network("whisper"), batch("whisper")
    with pytest.raises(ValueError, match="7 positions"):
        model({**inputs, "encoder_features": np.ones((2, 14, 5), "float32")})
    with pytest.raises(ValueError, match="10 positions"):
        model({**inputs, "decoder_token_ids": np.ones((2, 10), int)})
