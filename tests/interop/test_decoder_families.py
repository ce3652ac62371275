"""What no certificate sees of Phi-3, Gemma 2 and Mixtral: old configs, errors, the loss."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.interop.family_configs_decoders import SMALL, longrope
from tfbig.interop.checkpoint import CheckpointError
from tfbig.interop.families import gemma2, mixtral, phi3
from tfbig.interop.loading import network
from tfbig.interop.rope import rotary
from tfbig.interop.torch_modules import from_torch, gradients_from_torch

torch = pytest.importorskip("torch", reason="the oracle is in PyTorch")
transformers = pytest.importorskip("transformers", reason="the oracle is in transformers")


def randomised(model_class, config, seed=0):
    """A module whose weights, norms and biases too, are all drawn."""
    torch.manual_seed(seed)
    module = getattr(transformers, model_class)._from_config(config, attn_implementation="eager")
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return module.eval()


def close_logits(module, config):
    ids = np.random.default_rng(0).integers(3, 99, (2, 11))
    with torch.no_grad():
        expected = module(torch.from_numpy(ids)).logits.numpy()
    np.testing.assert_allclose(from_torch(module, config)(ids), expected, atol=1e-5)


def without_none(fields):
    return {name: value for name, value in fields.items() if value is not None}


@pytest.mark.parametrize("kind", ["su", "longrope"])
def test_phi3_as_it_was_saved_before_transformers_5(kind):
    old = {**SMALL, "model_type": "phi3", "rope_theta": 500.0, "sliding_window": None}
    old["original_max_position_embeddings"] = 8
    factors = longrope(8)["rope_parameters"]
    old["rope_scaling"] = {
        "type": kind,
        "short_factor": factors["short_factor"],
        "long_factor": factors["long_factor"],
    }
    # transformers 5.24 itself refuses "su", the name of LongRoPE in the first configs.
    said = {**old, "rope_scaling": {**old["rope_scaling"], "type": "longrope"}}
    module = randomised("Phi3ForCausalLM", transformers.Phi3Config.from_dict(said))
    close_logits(module, old)


def test_phi3_first_configs_call_longrope_yarn():
    fields = longrope(8)["rope_parameters"]
    config = {"max_position_embeddings": 32, "original_max_position_embeddings": 8}
    first = {**config, "rope_scaling": {**fields, "rope_type": "yarn"}}
    today = {**config, "rope_parameters": fields}
    ours = rotary(phi3.with_long_positions(first), 8).get_config()
    expected = rotary(today, 8).get_config()
    assert {**ours, "name": ""} == {**expected, "name": ""}
    # sqrt(1 + ln(32 / 8) / ln(8)) = sqrt(1 + 2/3)
    assert ours["magnitude"] == pytest.approx(np.sqrt(5 / 3))


def test_gemma2_with_no_more_than_it_must_have():
    needed = {
        "model_type": "gemma2",
        **{name: SMALL[name] for name in SMALL if "token_id" not in name},
        "query_pre_attn_scalar": None,
    }
    config = transformers.Gemma2Config(**without_none({**needed, "pad_token_id": 0}))
    close_logits(randomised("Gemma2ForCausalLM", config), needed)


def test_gemma2_seeing_both_ways_is_refused():
    with pytest.raises(CheckpointError, match="use_bidirectional_attention"):
        gemma2.build({**SMALL, "model_type": "gemma2", "use_bidirectional_attention": True})


def test_mixtral_turns_by_a_base_of_a_million():
    config = transformers.MixtralConfig(**SMALL, num_local_experts=4)
    needed = {**SMALL, "model_type": "mixtral", "num_local_experts": 4}
    close_logits(randomised("MixtralForCausalLM", config), needed)


def test_mixtral_trains_on_the_balance_loss_too():
    """With one layer, where the mean over layers is no question."""
    config = transformers.MixtralConfig(
        **{**SMALL, "num_hidden_layers": 1},
        num_local_experts=8,
        output_router_logits=True,
        router_aux_loss_coef=0.5,
    )
    module = randomised("MixtralForCausalLM", config)
    ours = from_torch(module)
    ids = np.random.default_rng(0).integers(3, 99, (2, 12))
    module(torch.from_numpy(ids), labels=torch.from_numpy(ids)).loss.backward()
    with tf.GradientTape() as tape:
        logits = ours(ids, training=True)
        each = keras.losses.sparse_categorical_crossentropy(
            ids[:, 1:], logits[:, :-1], from_logits=True
        )
        loss = tf.reduce_mean(each) + sum(ours.losses)
    gradients = tape.gradient(loss, ours.trainable_variables)
    theirs = gradients_from_torch(ours, module)
    whole = np.sqrt(sum(np.sum(g**2) for g in theirs))
    for variable, a, b in zip(ours.trainable_variables, gradients, theirs, strict=True):
        error = np.linalg.norm(tf.convert_to_tensor(a) - b)
        assert error <= 1e-4 * max(np.linalg.norm(b), 1e-6 * whole), variable.path
    assert len(ours.losses) == 1


def experts_of(count, width=4):
    names = {}
    for expert in range(count):
        for part, shape in ((1, (width, 6)), (3, (width, 6)), (2, (6, width))):
            name = f"model.layers.0.block_sparse_moe.experts.{expert}.w{part}.weight"
            names[name] = np.full(shape, 10 * expert + part, "float32")
    return names


class Tensors:
    def __init__(self, arrays):
        self.arrays = arrays

    def names(self):
        return tuple(self.arrays)

    def read(self, name):
        return self.arrays[name]


def test_mixtral_joined_by_hand_and_back():
    stored = experts_of(2)
    stored["model.layers.0.block_sparse_moe.gate.weight"] = np.ones((2, 6), "float32")
    joined = mixtral.Joined(Tensors(stored))
    prefix = "model.layers.0.mlp"
    assert set(joined.names()) == {
        f"{prefix}.gate.weight",
        f"{prefix}.experts.gate_up_proj",
        f"{prefix}.experts.down_proj",
    }
    both = joined.read(f"{prefix}.experts.gate_up_proj")
    assert both[:, :, 0].tolist() == [[1] * 4 + [3] * 4, [11] * 4 + [13] * 4]
    back = dict(part for name in joined.names() for part in mixtral.parted(name, joined.read(name)))
    assert back.keys() == stored.keys()
    for name, array in stored.items():
        np.testing.assert_array_equal(back[name], array)


@pytest.mark.parametrize("damage", ["expert", "matrix", "shape"])
def test_mixtral_with_a_damaged_expert(damage):
    stored = experts_of(3)
    prefix = "model.layers.0.block_sparse_moe.experts.1"
    if damage == "shape":
        stored[f"{prefix}.w1.weight"] = np.ones((5, 6), "float32")
    for part in {"expert": "123", "matrix": "3", "shape": ""}[damage]:
        del stored[f"{prefix}.w{part}.weight"]
    with pytest.raises(CheckpointError, match="gate_up_proj"):
        mixtral.Joined(Tensors(stored)).read("model.layers.0.mlp.experts.gate_up_proj")


@pytest.mark.parametrize("model_type", ["phi3", "gemma2", "mixtral"])
def test_a_field_that_is_missing(model_type):
    config = {name: value for name, value in SMALL.items() if name != "intermediate_size"}
    with pytest.raises(CheckpointError, match="intermediate_size"):
        network({**config, "model_type": model_type}, Tensors({}))
