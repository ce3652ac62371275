"""GGUF files as llama.cpp's converter writes them, of PyTorch models drawn at random.

The names are those of the table of the gguf package, and the changes of numbers are copied from
llama.cpp's convert_hf_to_gguf.py; both are independent of tfbig.
"""

import copy
import math

import numpy as np
import pytest

gguf = pytest.importorskip("gguf", reason="GGUF files are written with the package gguf")
torch = pytest.importorskip("torch", reason="the oracle is in PyTorch")
transformers = pytest.importorskip("transformers", reason="the oracle is in transformers")

SMALL = {
    "vocab_size": 99,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": None,
}
FACTORS = {"short_factor": [1.0, 1.1, 1.2, 1.3], "long_factor": [1.5, 2.5, 4.0, 9.0]}
LLAMA3 = {"rope_type": "llama3", "rope_theta": 5e5, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
LLAMA3 |= {"factor": 32.0, "original_max_position_embeddings": 8192}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
# Architecture, classes and the config's arguments.
MODELS = {
    "llama": ("llama", "Llama", {}),
    "llama-tied": ("llama", "Llama", {"tie_word_embeddings": True, "attention_bias": True}),
    "llama-3": ("llama", "Llama", {"rope_parameters": LLAMA3, "head_dim": 16}),
    "llama-3-like": (
        "llama",
        "Llama",
        {"rope_parameters": LLAMA3 | {"factor": 4.0, "original_max_position_embeddings": 48}},
    ),
    "llama-linear": (
        "llama",
        "Llama",
        {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}},
    ),
    "qwen2": ("qwen2", "Qwen2", {}),
    "qwen2-yarn": ("qwen2", "Qwen2", {"rope_parameters": {**YARN, "rope_theta": 1e6}}),
    "qwen3": ("qwen3", "Qwen3", {"head_dim": 16, "tie_word_embeddings": True}),
    "phi3": ("phi3", "Phi3", {"sliding_window": 4}),
    "phi3-long": (
        "phi3",
        "Phi3",
        {
            "original_max_position_embeddings": 8,
            "rope_parameters": {"rope_type": "longrope", "rope_theta": 1e4, **FACTORS},
        },
    ),
    "phi3-partial": (
        "phi3",
        "Phi3",
        {"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.75}},
    ),
    "gemma2": (
        "gemma2",
        "Gemma2",
        {"head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 4}
        | {"attn_logit_softcapping": 1.5, "final_logit_softcapping": 2.0},
    ),
}


def the_module(kind):
    """A PyTorch model all of whose weights are drawn, and its architecture."""
    torch.manual_seed(0)
    if kind == "gpt2":
        config = transformers.GPT2Config(
            vocab_size=99, n_embd=32, n_layer=2, n_head=4, n_positions=64, n_inner=48
        )
        architecture, name = "gpt2", "GPT2LMHeadModel"
    elif kind == "bert":
        fields = {
            n: v for n, v in SMALL.items() if n not in ("num_key_value_heads", "pad_token_id")
        }
        config = transformers.BertConfig(**fields)
        architecture, name = "bert", "BertModel"
    else:
        architecture, name, fields = MODELS[kind]
        config = getattr(transformers, f"{name}Config")(**{**SMALL, **copy.deepcopy(fields)})
        name = f"{name}ForCausalLM"
    module = getattr(transformers, name)._from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return module, architecture


def permuted(array, heads):
    """convert_hf_to_gguf.py, LlamaModel.permute."""
    split = array.reshape(heads, 2, array.shape[0] // heads // 2, *array.shape[1:])
    return split.swapaxes(1, 2).reshape(array.shape)


def rope_freqs(config):
    """convert_hf_to_gguf.py, LlamaModel.generate_extra_tensors."""
    rope = config.rope_parameters
    dim = config.head_dim
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    length, factor = rope["original_max_position_embeddings"], rope["factor"]
    result = []
    for frequency in 1.0 / (rope["rope_theta"] ** (np.arange(0, dim, 2) / dim)):
        wavelength = 2 * math.pi / frequency
        if wavelength < length / high:
            result.append(1)
        elif wavelength > length / low:
            result.append(factor)
        else:
            smooth = (length / wavelength - low) / (high - low)
            result.append(1 / ((1 - smooth) / factor + smooth))
    return np.array(result, dtype="float32")


def write_metadata(writer, architecture, config):
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_vocab_size(config.vocab_size)
    writer.add_bos_token_id(1)
    if architecture in ("gpt2", "bert"):
        writer.add_feed_forward_length(48)
        writer.add_layer_norm_eps(
            config.layer_norm_eps if architecture == "bert" else config.layer_norm_epsilon
        )
        return
    rope = config.rope_parameters
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(rope["rope_theta"])
    writer.add_rope_dimension_count(int(head_dim * rope.get("partial_rotary_factor", 1)))
    writer.add_key_length(head_dim)
    if architecture == "gemma2":
        writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
        writer.add_final_logit_softcapping(config.final_logit_softcapping)
    if architecture in ("gemma2", "phi3"):
        writer.add_sliding_window(config.sliding_window or 0)
    if rope["rope_type"] in ("linear", "yarn"):
        writer.add_rope_scaling_type(gguf.RopeScalingType(rope["rope_type"]))
        writer.add_rope_scaling_factor(rope["factor"])
    if rope["rope_type"] in ("yarn", "longrope"):
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
    if rope["rope_type"] == "longrope":
        scale = 64 / rope["original_max_position_embeddings"]
        length = rope["original_max_position_embeddings"]
        writer.add_rope_scaling_attn_factors(math.sqrt(1 + math.log(scale) / math.log(length)))
        writer.add_tensor("rope_factors_long.weight", np.float32(rope["long_factor"]))
        writer.add_tensor("rope_factors_short.weight", np.float32(rope["short_factor"]))
    if rope["rope_type"] == "llama3":
        writer.add_tensor("rope_freqs.weight", rope_freqs(config))


def converted(path, module, architecture):
    """The file that llama.cpp's converter writes of a model, in float32."""
    config = module.config
    writer = gguf.GGUFWriter(path, architecture)
    write_metadata(writer, architecture, config)
    number = next(k for k, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    table = gguf.get_tensor_name_map(number, config.num_hidden_layers)
    for name, parameter in module.named_parameters():
        array = parameter.detach().numpy()
        if architecture == "llama" and ".q_proj." in name:
            array = permuted(array, config.num_attention_heads)
        if architecture == "llama" and ".k_proj." in name:
            array = permuted(array, config.num_key_value_heads)
        if architecture == "gemma2" and name.endswith("norm.weight"):
            array = array + 1
        if name.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight")):
            array = array.T
        stem, _, kind = name.rpartition(".")
        if not stem.startswith("pooler"):
            writer.add_tensor(f"{table.get_name(stem)}.{kind}", np.ascontiguousarray(array))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
