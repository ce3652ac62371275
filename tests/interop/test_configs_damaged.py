"""A config.json that is damaged makes a CheckpointError, at once, and never another error."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.interop import (
    family_configs_decoders,
    family_configs_encoders,
    family_configs_llama,
    family_configs_seq2seq,
)
from tfbig.interop.checkpoint import CheckpointError
from tfbig.interop.families import FAMILIES, family_of, t5
from tfbig.interop.family import LARGEST_SIZE, option, rate
from tfbig.interop.loading import network
from tfbig.interop.rope import rotary

MODEL_TYPES = [kind for family in FAMILIES for kind in family.model_types]
ROWS = [
    *family_configs_llama.CONFIGS,
    *family_configs_decoders.CONFIGS,
    *family_configs_encoders.CONFIGS,
    *family_configs_seq2seq.CONFIGS,
]


class Nothing:
    """A checkpoint without tensors."""

    def names(self):
        return ()

    def read(self, name):
        raise KeyError(name)


def model_type(config_class):
    squeezed = config_class.removesuffix("Config").lower()
    return next(kind for kind in MODEL_TYPES if kind.replace("-", "") == squeezed)


# Of one layer each, for speed.
ONE = {
    name: 1
    for name in ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "num_decoder_layers")
} | {"encoder_layers": 1, "decoder_layers": 1}
CONFIGS = [
    {
        **{name: ONE.get(name, value) for name, value in arguments.items()},
        "model_type": model_type(config_class),
        "architectures": [model_class],
    }
    for _, model_class, config_class, arguments in ROWS
]
# Fields that the small configs leave out.
OTHERS = [
    *("rope_scaling", "rope_parameters", "rope_theta", "head_dim", "layer_types", "hidden_act"),
    *("attention_bias", "mlp_bias", "attention_dropout", "rms_norm_eps", "initializer_range"),
    *("partial_rotary_factor", "sliding_window", "use_sliding_window", "max_window_layers"),
    *("layer_norm_epsilon", "attn_pdrop", "n_inner", "scale_attn_by_inverse_layer_idx"),
    *("tie_word_embeddings", "id2label", "classifier_dropout", "is_decoder", "pad_token_id"),
    *("feed_forward_proj", "num_experts_per_tok", "image_size", "qkv_bias", "text_config"),
    *("original_max_position_embeddings", "final_logit_softcapping", "scale_decoder_outputs"),
]
VALUES = [
    *(None, True, "x", "16", -1, 0, 1, 7, 2.5, 10**6, 10**9, float("nan"), float("inf"), 10**400),
    *([], [None], [1, 2], ["full_attention"], {}, {"a": 1}, [["silu"]], "gated-", "gelu"),
    *({"rope_type": kind} for kind in ("yarn", "linear", "llama3", "longrope", "su", ["a"], 3)),
    {"rope_type": "longrope", "short_factor": [0] * 4, "long_factor": [1, "a", None, 2]},
    {"rope_type": "linear", "factor": float("nan")},
    {"rope_type": "llama3", "factor": 8, "low_freq_factor": 1, "high_freq_factor": 1},
    {"rope_theta": 0},
    {"num_attention_heads": 0},
    {"hidden_size": "768"},
]


def is_refused(config):
    with pytest.raises(CheckpointError) as error:
        network(config, Nothing())
    assert len(str(error.value)) < 2000


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.data())
def test_whatever_a_field_becomes(data):
    config = dict(data.draw(st.sampled_from(CONFIGS)))
    for _ in range(data.draw(st.integers(1, 2))):
        name = data.draw(st.sampled_from([*config, *OTHERS]))
        value = data.draw(st.sampled_from(VALUES))
        half = (
            config[name] if isinstance(config.get(name), dict) and data.draw(st.booleans()) else {}
        )
        if half:
            config[name] = {**half, data.draw(st.sampled_from(sorted(half))): value}
        else:
            config[name] = value
    is_refused(config)


def small(model_type):
    return next(config for config in CONFIGS if config["model_type"] == model_type)


@pytest.mark.parametrize(
    ("model_type", "fields", "message"),
    [
        ("llama", {"hidden_size": "32"}, "'hidden_size' is '32', and a whole number from 1"),
        ("llama", {"hidden_size": 2**24 + 1}, "'hidden_size' is 16777217"),
        ("llama", {"num_attention_heads": 3, "head_dim": None}, "32 dimensions .* by 3 heads"),
        ("llama", {"num_key_value_heads": 3}, "multiple of num_key_value_heads"),
        ("llama", {"head_dim": 7}, "7 dimensions 7 are turned in pairs"),
        ("llama", {"head_dim": 2**20}, "1048576 are turned in pairs"),
        ("llama", {"attention_dropout": 2.0}, "'attention_dropout' is 2.0, and a number from 0"),
        ("llama", {"rope_parameters": {"rope_type": ["a"]}}, "'rope_type' is \\['a'\\]"),
        ("llama", {"rope_parameters": {"rope_type": "linear"}}, "not those of 'linear'"),
        ("llama", {"rope_scaling": {"type": "dynamic"}}, "none of default, linear, llama3"),
        ("phi3", {"rope_scaling": {"type": "su"}}, "KeyError\\('short_factor'\\)"),
        ("gemma2", {"layer_types": ["full_attention"] * 3}, "for each of 1 layers"),
        ("gemma2", {"layer_types": ["chunked_attention"]}, "chunked_attention"),
        ("gemma2", {"sliding_window": 0}, "'sliding_window' is 0"),
        ("bert", {"type_vocab_size": 0}, "'type_vocab_size' is 0"),
        ("bert", {"architectures": "BertModel"}, "'architectures' is 'BertModel', and a list"),
        ("bert", {"architectures": [1]}, "a list of names"),
        ("bert", {"architectures": ["BertLMHeadModel"]}, "BertModel, BertForMaskedLM"),
        ("roberta", {"architectures": ["XLMRobertaModel"]}, "RobertaModel, RobertaForMaskedLM"),
        ("distilbert", {"architectures": ["BertModel"]}, "DistilBertModel"),
        ("t5", {"relative_attention_num_buckets": 1}, "'relative_attention_num_buckets' is 1"),
        ("mixtral", {"num_experts_per_tok": 99}, "ValueError: top_k is 99"),
    ],
)
def test_the_message_names_the_field(model_type, fields, message):
    with pytest.raises(CheckpointError, match=message):
        network({**small(model_type), **fields}, Nothing())


@pytest.mark.parametrize("model_type", ["llama", "gpt2", "distilbert", "t5", "marian", "clip"])
def test_a_million_layers_are_refused_before_one_is_made(model_type):
    def many(fields):
        return {name: 10**6 if name in ONE else value for name, value in fields.items()}

    config = many(small(model_type))
    if model_type == "clip":
        config["text_config"] = many(config["text_config"])
    start = time.monotonic()
    with pytest.raises(CheckpointError, match="is 1000000, and there are 0 tensors"):
        network(config, Nothing())
    assert time.monotonic() - start < 1  # made, they would take hours


def test_a_t5_that_is_tied_and_not_scaled_is_refused():
    """No such T5 was published, and nothing here computes it."""
    config = {**small("t5"), "scale_decoder_outputs": False, "tie_word_embeddings": True}
    assert "lm_head.weight" in [name.theirs for name in t5.names(config, t5.build(config))]
    is_refused(config)


def test_options_by_hand():
    assert option({"a": 3}, "a", 1.0) == 3.0 and type(option({"a": 3}, "a", 1.0)) is float
    assert option({"a": None}, "a", 7) == 7 and rate({"a": 0}, "a", 0.1) == 0.0
    for config, default in [({"a": True}, 1), ({"a": 1}, False), ({"a": 3.0}, 1), ({"a": 0}, 1)]:
        with pytest.raises(CheckpointError, match="'a' is"):
            option(config, "a", default)
    for value in (float("nan"), float("inf"), -0.1, 10**400):
        with pytest.raises(CheckpointError, match="a number from 0"):
            option({"a": value}, "a", 1.0)
    assert option({"a": LARGEST_SIZE}, "a", 1) == LARGEST_SIZE


def test_mistral_without_a_window_has_that_of_its_class():
    config = {key: value for key, value in small("mistral").items() if key != "sliding_window"}
    model = family_of(config).build(config)
    assert model.transformer.blocks[0].attention.sees.window == 4096
    model = family_of(config).build({**config, "sliding_window": None})
    assert model.transformer.blocks[0].attention.sees.window is None


def test_rotary_positions_of_transformers_5_and_before_are_one():
    said = {"rope_type": "linear", "factor": 4.0, "rope_theta": 100.0}
    old = {"rope_theta": 100.0, "rope_scaling": {"type": "linear", "factor": 4}}
    # 1 / 4 and 100^(-1/2) / 4
    for config in ({"rope_parameters": said}, old):
        assert rotary(config, 4).frequencies == pytest.approx((0.25, 0.025))
