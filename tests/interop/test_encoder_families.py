"""BERT, RoBERTa, DistilBERT, ViT and CLIP against `transformers`, beyond the common certificate.

The certificate compares each config of `family_configs_encoders` in one batch. Here: padding on
either side, types of tokens, old spellings of names, weights that no output needs, configs that
leave fields out, and configs that are wrong.
"""

import dataclasses

import numpy as np
import pytest

from tests.interop.family_configs_encoders import CONFIGS
from tfbig.interop.checkpoint import CheckpointError, open_checkpoint, write_checkpoint
from tfbig.interop.families import bert, clip, distilbert, family_of, roberta, vit
from tfbig.interop.loading import load, save
from tfbig.interop.torch_modules import from_torch, gradients_from_torch, to_torch
from tfbig.models import CountingTokenFront, MaskedLM, TextEncoder

# Float32 through two layers gives 1e-6; a wrong position or type gives 1e-1.
TOLERANCE = 1e-5
BY_ID = {row[0]: row[1:] for row in CONFIGS}
# Row 0 is whole, row 1 has padding (id 1) on the left, row 2 on the right.
IDS = np.array([[5, 6, 7, 8, 9], [1, 1, 5, 6, 7], [5, 6, 7, 1, 1]])
MASK = (IDS != 1).astype("int32")


def _module(name, class_name=None):
    torch = pytest.importorskip("torch", reason="the oracle")
    transformers = pytest.importorskip("transformers", reason="the oracle")
    usual, config_class, arguments = BY_ID[name]
    config = getattr(transformers, config_class)(**arguments)
    torch.manual_seed(0)
    kind = getattr(transformers, class_name or usual)
    module = kind._from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        # Biases start at zero and norms at one, where a swap does not show.
        for parameter in module.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return module


def _theirs(module, **inputs):
    import torch

    with torch.no_grad():
        result = module(**{name: torch.from_numpy(value).long() for name, value in inputs.items()})
    return result.last_hidden_state.numpy()


def _state(module):
    return {name: value.numpy() for name, value in module.state_dict().items()}


@pytest.mark.parametrize("with_mask", [True, False])
def test_roberta_has_the_same_positions_with_padding_left_and_right(with_mask):
    module = _module("roberta")
    inputs = {"token_ids": IDS, **({"padding_mask": MASK} if with_mask else {})}
    expected = _theirs(module, input_ids=IDS, **({"attention_mask": MASK} if with_mask else {}))
    ours = np.asarray(from_torch(module)(inputs))
    # Padding as well: it has a position of its own.
    np.testing.assert_allclose(ours, expected, atol=TOLERANCE)
    if with_mask:
        np.testing.assert_allclose(ours[1, 2:], ours[2, :3], atol=TOLERANCE)


def test_bert_takes_types_and_positions():
    module = _module("bert")
    types, positions = (IDS % 2).astype("int64"), np.array([[3, 1, 4, 0, 2]])
    expected = _theirs(module, input_ids=IDS, token_type_ids=types, position_ids=positions)
    ours = from_torch(module)({"token_ids": IDS, "type_ids": types, "positions": positions})
    np.testing.assert_allclose(ours, expected, atol=TOLERANCE)


@pytest.mark.parametrize("name", ["bert", "distilbert"])
def test_padding_on_the_left(name):
    module = _module(name)
    expected = _theirs(module, input_ids=IDS, attention_mask=MASK)
    ours = from_torch(module)({"token_ids": IDS, "padding_mask": MASK})
    np.testing.assert_allclose(ours, expected, atol=TOLERANCE)


def test_clip_finds_the_end_where_padding_has_its_id():
    torch = pytest.importorskip("torch", reason="the oracle")
    module = _module("clip")
    ids = np.array([[5, 98, 98, 98], [5, 6, 98, 7], [5, 6, 7, 8]])
    images = np.random.default_rng(0).normal(size=(2, 12, 12, 3)).astype("float32")
    with torch.no_grad():
        expected = module(
            input_ids=torch.from_numpy(ids),
            pixel_values=torch.from_numpy(images.transpose(0, 3, 1, 2).copy()),
        ).logits_per_text.numpy()
    ours = from_torch(module)({"token_ids": ids, "images": images})
    np.testing.assert_allclose(ours, expected, atol=TOLERANCE)


def test_both_heads_of_bert_for_pre_training_are_saved_again(tmp_path):
    module = _module("bert-tokens", "BertForPreTraining")
    module.save_pretrained(tmp_path / "old")
    model, _ = load(tmp_path / "old")
    assert isinstance(model, MaskedLM)
    save(model, tmp_path / "new")
    with open_checkpoint(tmp_path / "old") as old, open_checkpoint(tmp_path / "new") as new:
        assert {"bert.pooler.dense.bias", "cls.seq_relationship.bias"} <= set(old.names())
        assert set(old.names()) == set(new.names())
        assert all(old.read(name).tobytes() == new.read(name).tobytes() for name in old.names())


def test_a_carried_weight_takes_the_dtype_of_the_others(tmp_path):
    model = from_torch(_module("bert"))
    save(model, tmp_path / "half", dtype="bfloat16")
    with open_checkpoint(tmp_path / "half") as checkpoint:
        assert {checkpoint.dtype(name) for name in checkpoint.names()} == {"BF16"}
        assert checkpoint.has("pooler.dense.weight")


def test_the_spelling_of_the_first_checkpoints_is_read(tmp_path):
    # bert-base-uncased on its hub: LayerNorm.gamma, the prefix, the decoder a second time.
    module = _module("bert-tokens")
    state = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): value
        for name, value in _state(module).items()
    }
    state["bert.embeddings.position_ids"] = np.arange(40)[None]
    assert "cls.predictions.decoder.weight" in state and "bert.embeddings.LayerNorm.gamma" in state
    config = {**module.config.to_dict(), "architectures": ["BertForMaskedLM"]}
    write_checkpoint(tmp_path / "old", state, config)
    model, _ = load(tmp_path / "old")
    expected = np.asarray(from_torch(module)(IDS))
    np.testing.assert_array_equal(model(IDS), expected)
    # Saved as they are spelled today, and the copy of the table not at all.
    save(model, tmp_path / "new")
    with open_checkpoint(tmp_path / "new") as new:
        tied = {"cls.predictions.decoder.weight", "cls.predictions.decoder.bias"}
        assert set(new.names()) == set(_state(module)) - tied
    # The bare network of the same file: the heads are kept, not refused.
    write_checkpoint(tmp_path / "bare", state, {**config, "architectures": ["BertModel"]})
    states, _ = load(tmp_path / "bare")
    assert type(states) is TextEncoder and states(IDS).shape == (3, 5, 32)


def test_two_spellings_of_one_tensor_are_refused():
    module = _module("bert")
    state = _state(module)
    state["bert.embeddings.LayerNorm.gamma"] = state["embeddings.LayerNorm.weight"]
    with pytest.raises(CheckpointError, match="two spellings of one"):
        _network(module, state)


def test_a_tensor_too_many_or_too_few_is_named():
    module = _module("bert")
    with pytest.raises(CheckpointError, match="without a place encoder.layer.9.output.bias"):
        _network(module, {**_state(module), "encoder.layer.9.output.bias": np.zeros(2)})
    state = _state(module)
    del state["embeddings.LayerNorm.bias"]
    with pytest.raises(CheckpointError, match="missing embeddings.LayerNorm.bias"):
        _network(module, state)


def _network(module, state):
    from tfbig.interop.loading import network

    @dataclasses.dataclass
    class Tensors:
        state: dict

        def names(self):
            return tuple(self.state)

        def read(self, name):
            return self.state[name]

    config = {**module.config.to_dict(), "architectures": [type(module).__name__]}
    return network(config, Tensors(state))


@pytest.mark.parametrize("name", ["vit-classes", "clip"])
def test_weights_and_gradients_go_to_a_module_and_back(name):
    # ViT's modules have other names than its files, CLIP's scale has no axis.
    torch = pytest.importorskip("torch", reason="the oracle")
    module = _module(name)
    model = from_torch(module)
    other = type(module)._from_config(module.config)
    to_torch(model, other)
    state = other.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in module.state_dict().items())
    sum(parameter.square().sum() for parameter in module.parameters()).backward()
    # Of a sum of squares the gradient is twice the weight.
    gradients = gradients_from_torch(model, module)
    for variable, gradient in zip(model.trainable_variables, gradients, strict=True):
        np.testing.assert_allclose(gradient, 2 * np.asarray(variable), rtol=1e-6)


def test_dropout_is_where_transformers_has_it():
    _, _, arguments = BY_ID["distilbert-classes"]
    config = {"model_type": "distilbert", "architectures": ["DistilBertForSequenceClassification"]}
    model = distilbert.build({**config, **arguments, "dropout": 0.3, "attention_dropout": 0.2})
    block = model.transformer.blocks[0]
    # The branch of the attention has none of its own.
    assert (block.attention.dropout.rate, block.attention_join.dropout.rate) == (0.2, 0.0)
    assert (block.feed_forward.output_dropout.rate, model.head.dropout.rate) == (0.3, 0.2)
    assert model.head.transform.dropout.rate == 0.0

    _, _, arguments = BY_ID["roberta-classes"]
    config = {"model_type": "roberta", "architectures": ["RobertaForSequenceClassification"]}
    model = roberta.build({**config, **arguments, "classifier_dropout": 0.4})
    assert (model.head.transform.dropout.rate, model.head.dropout.rate) == (0.4, 0.4)
    assert model.transformer.blocks[0].feed_forward_join.dropout.rate == 0.1


@pytest.mark.parametrize(
    ("family", "class_name", "places"),
    [
        (bert, "BertConfig", {"vocab_size": "front.vocabulary_size"}),
        (roberta, "RobertaConfig", {"vocab_size": "front.vocabulary_size"}),
        (distilbert, "DistilBertConfig", {"vocab_size": "front.vocabulary_size"}),
        (vit, "ViTConfig", {"image_size": "front.image_size", "patch_size": "front.patch_size"}),
        (clip, "CLIPConfig", {"logit_scale_init_value": "initial_log_scale"}),
    ],
)
def test_missing_fields_are_those_of_the_configuration(family, class_name, places):
    transformers = pytest.importorskip("transformers", reason="the oracle")
    full = getattr(transformers, class_name)().to_dict()
    kind = family.FAMILY.model_types[0]
    # Half of them are missing, half are there and null.
    empty = family.build({**dict.fromkeys(list(full)[::2]), "model_type": kind})
    assert _without_names(empty.get_config()) == _without_names(family.build(full).get_config())
    for name, place in places.items():
        assert full[name] == _at(empty, place)


def _at(model, path):
    for step in path.split("."):
        model = getattr(model, step)
    return model


def _without_names(config):
    """A config without the names and seeds that Keras numbers."""
    if isinstance(config, dict):
        return {k: _without_names(v) for k, v in config.items() if k not in ("name", "seed")}
    return [_without_names(item) for item in config] if isinstance(config, list) else config


def test_the_halves_of_clips_first_configs_count():
    config = {"text_config": {"hidden_size": 24}, "text_config_dict": {"hidden_size": 64}}
    assert clip.build({"model_type": "clip", **config}).text.front.hidden_dim == 64


BERT = {"model_type": "bert", "architectures": ["BertModel"]}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({**BERT, "architectures": ["BertForQuestionAnswering"]}, "BertForQuestionAnswering"),
        ({**BERT, "architectures": ["BertLMHeadModel"]}, "'BertLMHeadModel' is not read"),
        ({**BERT, "is_decoder": True}, "as a decoder"),
        ({**BERT, "hidden_size": "768"}, "'hidden_size' is '768', and a whole number"),
        ({**BERT, "hidden_size": True}, "'hidden_size' is True"),
        ({**BERT, "hidden_size": 10, "num_attention_heads": 4}, "10 dimensions"),
        ({**BERT, "num_attention_heads": 0}, "'num_attention_heads' is 0"),
        ({**BERT, "num_attention_heads": -4}, "'num_attention_heads' is -4"),
        ({**BERT, "hidden_act": "gelu_swish"}, "'gelu_swish'"),
        (
            {**BERT, "architectures": ["BertForMaskedLM"], "tie_word_embeddings": False},
            "tie_word_embeddings is false",
        ),
        ({"model_type": "roberta", "pad_token_id": 600}, "no position is left"),
        ({"model_type": "roberta", "pad_token_id": -1}, "'pad_token_id' is -1"),
        ({"model_type": "vit", "image_size": [224, 200]}, "'image_size' is \\[224, 200\\]"),
        ({"model_type": "vit", "architectures": ["ViTForMaskedImageModeling"]}, "ViTModel"),
        ({"model_type": "clip", "architectures": ["CLIPForImageClassification"]}, "CLIPModel"),
        ({"model_type": "clip", "text_config": {"eos_token_id": [1, 2]}}, "'eos_token_id'"),
        ({"model_type": "clip", "text_config": "small"}, "'text_config' is 'small'"),
    ],
)
def test_wrong_configs_are_answered(config, message):
    with pytest.raises(CheckpointError, match=message):
        family_of(config).build(config)


def test_the_front_of_roberta_is_the_one_that_counts():
    model = roberta.build({"model_type": "xlm-roberta", "max_position_embeddings": 514})
    assert type(model.front) is CountingTokenFront
    # 514 rows, the first two without a token.
    assert (model.front.positions.max_length, model.front.positions.offset) == (512, 2)
