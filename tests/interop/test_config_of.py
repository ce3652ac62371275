"""The config.json that is written for a network that was not loaded: right, or an error."""

import keras
import numpy as np
import pytest

from tfbig.interop.checkpoint import CheckpointError
from tfbig.interop.families import llama
from tfbig.interop.loading import config_of, load, network, save
from tfbig.models import (
    Attention,
    Block,
    Causal,
    CausalLM,
    DotProduct,
    FeedForward,
    GatedFeedForward,
    Head,
    PreNorm,
    RMSNorm,
    Rotary,
    TextEncoder,
    TiedHead,
    TokenFront,
    Transformer,
    gelu_tanh,
    language_model,
    quick_gelu,
    rotary_frequencies,
)

IDS = np.array([[3, 1, 4, 1, 5, 9, 2, 6]])
SMALL = {
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 50,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "tie_word_embeddings": True,
    "max_position_embeddings": 64,
}


def drawn(model):
    """The network with all weights drawn, biases and norms too."""
    model.build()
    draw = np.random.default_rng(0)
    for variable in model.trainable_variables:
        variable.assign(draw.normal(0.5, 0.5, variable.shape))
    return model


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(lambda: language_model(50, 2, 2, 16), id="plain"),
        pytest.param(lambda: language_model(50, 1, 2, 4), id="one-pair"),
        pytest.param(lambda: language_model(50, 1, 2, 16, 1, rotary_base=5e5), id="base"),
        pytest.param(lambda: language_model(50, 1, 2, 16, dropout=0.3), id="dropout"),
        *(
            pytest.param(
                lambda activation=activation, bias=bias: language_model(
                    50, 1, 2, 16, feed_forward=GatedFeedForward(32, activation, use_bias=bias)
                ),
                id=f"{getattr(activation, '__name__', activation)}-{bias}",
            )
            for activation, bias in [
                ("gelu", True),
                ("relu", False),
                (gelu_tanh, True),
                (quick_gelu, False),
            ]
        ),
    ],
)
def test_what_is_written_is_the_network(model, tmp_path):
    model = drawn(model())
    save(model, tmp_path / "saved")
    again, _ = load(tmp_path / "saved")
    assert config_of(again)["model_type"] == "llama"
    # The same computation on the same numbers.
    np.testing.assert_allclose(again(IDS), model(IDS), rtol=1e-6, atol=1e-6)


def decoder(**parts):
    """A Llama of parts, some of which are others."""
    attention = {
        "num_heads": 2,
        "head_dim": 8,
        "rotary": Rotary(rotary_frequencies(8)),
        "sees": Causal(),
    }
    attention |= {name: parts[name] for name in parts if name in ("sees", "score", "biases")}
    attention |= {name: parts[name] for name in parts if name in ("norm", "rotary")}
    join = parts.get("join", PreNorm(RMSNorm()))
    block = Block(Attention(**attention), parts.get("feed_forward", GatedFeedForward(32)), join)
    second = parts.get("second")
    blocks = [block, second(attention)] if second else block
    return CausalLM(
        parts.get("front", TokenFront(50, 16)),
        Transformer(blocks, 2, parts.get("last", RMSNorm())),
        parts.get("head", TiedHead()),
    )


def other_block(attention):
    return Block(
        Attention(**{**attention, "sees": Causal(4)}), GatedFeedForward(32), PreNorm(RMSNorm())
    )


@pytest.mark.parametrize(
    "parts",
    [{}, {"head": Head(50)}, {"biases": ["query", "key", "value", "output"]}],
    ids=["tied", "free", "biases"],
)
def test_what_a_llama_has_is_written(parts, tmp_path):
    model = drawn(decoder(**parts))
    save(model, tmp_path / "saved")
    np.testing.assert_allclose(load(tmp_path / "saved")[0](IDS), model(IDS), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"sees": Causal(4)}, "sees.config.window is 4, and a Llama has None"),
        ({"score": DotProduct(0.5)}, "score.config.scale is 0.5, and a Llama has None"),
        ({"biases": ["query"]}, "biases is \\['query'\\]"),
        ({"norm": RMSNorm()}, "attention.*norm"),
        ({"rotary": Rotary(rotary_frequencies(8), 1.5)}, "magnitude is 1.5, and a Llama has 1.0"),
        ({"rotary": Rotary(rotary_frequencies(4))}, "frequencies is"),
        ({"rotary": Rotary((1.0, 0.5, 0.3, 0.1))}, "frequencies.2 is 0.3"),
        ({"rotary": None}, "has a NoneType, where a Llama has a Rotary"),
        ({"join": PreNorm(RMSNorm(offset=1.0))}, "norm.config.offset is 1.0"),
        ({"join": PreNorm(keras.layers.LayerNormalization())}, "a LayerNormalization, where"),
        ({"last": RMSNorm(1e-3)}, "transformer.config.norm.config.epsilon is 0.001"),
        ({"last": None}, "transformer.config.norm is None"),
        ({"feed_forward": FeedForward(32)}, "has a FeedForward, where a Llama has a Gated"),
        ({"feed_forward": GatedFeedForward(32, "softplus")}, "'softplus' is none of"),
        ({"front": TokenFront(50, 16, scale=4.0)}, "front.config.scale is 4.0"),
        ({"head": TiedHead(cap=30.0)}, "head.config.cap is 30.0"),
        ({"head": TiedHead(0.5)}, "head.config.scale is 0.5"),
        ({"second": other_block}, "transformer.config.block is"),
    ],
)
def test_what_a_llama_has_not_is_refused(parts, message, tmp_path):
    model = drawn(decoder(**parts))
    with pytest.raises(CheckpointError, match=message):
        save(model, tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model_type": "qwen2"}, "biases is \\['query', 'key', 'value'\\]"),
        (
            {
                "model_type": "llama",
                "rope_parameters": {
                    "rope_type": "llama3",
                    "rope_theta": 10_000.0,
                    "factor": 8.0,
                    "low_freq_factor": 1.0,
                    "high_freq_factor": 4.0,
                    "original_max_position_embeddings": 32,
                },
            },
            "frequencies.2 is",
        ),
    ],
    ids=["qwen2", "llama3"],
)
def test_a_keras_file_of_a_loaded_network(fields, message, tmp_path):
    """The .keras file does not say what the config.json was: it is written if it is given."""
    config = {**SMALL, **fields}
    model = drawn(llama.build(config))
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    with pytest.raises(CheckpointError, match=f"config=.*{message}"):
        save(again, tmp_path / "saved")
    save(again, tmp_path / "saved", config=config)
    np.testing.assert_array_equal(load(tmp_path / "saved")[0](IDS), model(IDS))


def test_another_network_is_refused():
    encoder = TextEncoder(TokenFront(9, 8), decoder().transformer)
    with pytest.raises(CheckpointError, match="it is a TextEncoder"):
        config_of(encoder)


def test_the_config_of_a_loaded_network_is_its_own():
    class Tensors:
        def __init__(self, config):
            model = drawn(llama.build(config))
            self.arrays = {}
            for name in llama.names(config, model):
                found = model
                for step in name.paths[0].split("."):
                    found = found[int(step)] if step.isdigit() else getattr(found, step)
                array = np.asarray(found)
                self.arrays[name.theirs] = array if name.axes is None else array.T

        def names(self):
            return tuple(self.arrays)

        def read(self, name):
            return self.arrays[name]

    config = {**SMALL, "model_type": "qwen2", "eos_token_id": 7}
    assert config_of(network(config, Tensors(config))) == config


def test_differences_by_hand():
    base = {"name": "a", "parts": [{"scale": 1.0, "dropout": 0.1}], "kernel_initializer": "zeros"}
    same = {"name": "b", "parts": [{"scale": 1.0 + 1e-12, "dropout": 0.5}], "initializer": "ones"}
    assert llama.difference(base, same) is None
    assert llama.difference({"a": [1, 2]}, {"a": [1, 3]}) == "a.1 is 2, and a Llama has 3"
    assert llama.difference({"a": None}, {}) is None
    assert llama.difference({}, {"a": 0}) == "a is None, and a Llama has 0"
    assert llama.difference(1.0, 1.0 + 1e-6) == "it is 1.0, and a Llama has 1.000001"
