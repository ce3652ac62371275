"""The metadata of a GGUF file as the config.json of Hugging Face.

Keys are llama.cpp's (`gguf-py/gguf/constants.py`; `src/llama-model.cpp` for what it assumes where
one is missing). What the metadata says is held against the shapes of the tensors before anything is
made of that size. Dropout rates and how weights were drawn are in no GGUF file: they are the
defaults of the family.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from tfbig.interop.gguf_metadata import Metadata
from tfbig.interop.sentence_transformers import KEY as SENTENCES
from tfbig.interop.stored_tensor import CheckpointError
from tfbig.models import rotary_frequencies
from tfbig.models.rotary import llama3_scaled, yarn_magnitude

# Llama 3.1's, 3.2's and 3.3's numbers, of which GGUF files keep what comes out only.
_LOW, _HIGH, _LLAMA3_LENGTH = 1.0, 4.0, 8192
ConfigOf = Callable[[Metadata], dict[str, Any]]
_POOLINGS = {1: "mean", 2: "cls", 3: "lasttoken"}


def decoder_config(metadata: Metadata) -> dict[str, Any]:
    """What Llama, Qwen, Phi-3 and Gemma 2 have in common.

    Raises:
        CheckpointError: if a field is missing, or not of the tensors' shapes.
    """
    checkpoint = metadata.checkpoint
    hidden_dim = metadata.whole("embedding_length")
    heads = metadata.whole("attention.head_count")
    key_heads = metadata.whole("attention.head_count_kv", heads)
    head_dim = metadata.whole("attention.key_length", hidden_dim // heads or None)
    if heads % key_heads:
        raise metadata.wrong("attention.head_count_kv", key_heads, f"a divisor of {heads}")
    if metadata.whole("attention.value_length", head_dim) != head_dim:
        raise metadata.wrong("attention.value_length", "another", f"the key's, {head_dim},")
    if metadata.whole("expert_count", 0, least=0):
        raise metadata.wrong("expert_count", metadata.whole("expert_count"), "no mixture")
    width = metadata.whole("feed_forward_length")
    metadata.expect_shape("blk.0.attn_output.weight", (hidden_dim, heads * head_dim))
    metadata.expect_shape("blk.0.ffn_down.weight", (hidden_dim, width))
    return {
        "vocab_size": vocabulary_size(metadata, hidden_dim),
        "hidden_size": hidden_dim,
        "intermediate_size": width,
        "num_hidden_layers": layers(metadata),
        "num_attention_heads": heads,
        "num_key_value_heads": key_heads,
        "head_dim": head_dim,
        "rms_norm_eps": metadata.number("attention.layer_norm_rms_epsilon"),
        "max_position_embeddings": metadata.whole("context_length"),
        "rope_parameters": rope_parameters(metadata, head_dim),
        "tie_word_embeddings": not checkpoint.has("output.weight"),
    }


def vocabulary_size(metadata: Metadata, hidden_dim: int) -> int:
    """The rows of the table of tokens, whose width is checked."""
    rows = (metadata.checkpoint.shape("token_embd.weight") or (0,))[0]
    metadata.expect_shape("token_embd.weight", (rows, hidden_dim))
    return rows


def layers(metadata: Metadata) -> int:
    """The number of blocks, the last of which is there."""
    count = metadata.whole("block_count")
    metadata.checkpoint.shape(f"blk.{count - 1}.attn_output.weight")
    return count


def rope_parameters(metadata: Metadata, head_dim: int) -> dict[str, Any]:
    """What the metadata and the tensors of factors say of rotary positions.

    Raises:
        CheckpointError: if it is a scaling that is not known.
    """
    checkpoint = metadata.checkpoint
    fields: dict[str, Any] = {
        "rope_type": "default",
        "rope_theta": metadata.number("rope.freq_base", 10_000.0),
    }
    turned = metadata.whole("rope.dimension_count", head_dim)
    if turned > head_dim or turned % 2:
        raise metadata.wrong("rope.dimension_count", turned, f"an even number to {head_dim}")
    if turned < head_dim:
        fields["partial_rotary_factor"] = turned / head_dim
    if checkpoint.has("rope_freqs.weight"):
        divisors = _divisors(metadata, "rope_freqs.weight", turned // 2)
        return fields | _divided(metadata, divisors, fields["rope_theta"])
    if checkpoint.has("rope_factors_long.weight"):
        fields |= {
            "rope_type": "longrope",
            "short_factor": _divisors(metadata, "rope_factors_short.weight", turned // 2),
            "long_factor": _divisors(metadata, "rope_factors_long.weight", turned // 2),
            "original_max_position_embeddings": metadata.whole(
                "rope.scaling.original_context_length"
            ),
        }
        if metadata.has("rope.scaling.attn_factor"):
            fields["attention_factor"] = metadata.number("rope.scaling.attn_factor")
        return fields
    kind = metadata.text("rope.scaling.type", "linear")
    factor = metadata.number("rope.scaling.factor", metadata.number("rope.scale_linear", 1.0))
    if kind == "none" or (kind == "linear" and factor == 1.0):
        return fields
    if kind == "linear":
        return fields | {"rope_type": "linear", "factor": factor}
    if kind == "yarn":
        length = metadata.whole(
            "rope.scaling.original_context_length", metadata.whole("context_length")
        )
        fields |= {
            "rope_type": "yarn",
            "factor": factor,
            "original_max_position_embeddings": length,
        }
        if metadata.has("rope.scaling.attn_factor"):
            scale = metadata.number("rope.scaling.attn_factor")
            fields["attention_factor"] = scale * yarn_magnitude(factor)
        return fields
    raise metadata.wrong("rope.scaling.type", kind, "none, linear or yarn")


def _divisors(metadata: Metadata, tensor: str, pairs: int) -> list[float]:
    metadata.expect_shape(tensor, (pairs,))
    values = metadata.checkpoint.read(tensor).astype("float64")
    if not np.all((values > 0) & np.isfinite(values)):
        raise CheckpointError(
            f"{metadata.checkpoint.path}: tensor {tensor!r} divides frequencies, and not all of "
            f"its numbers are above 0: the file is damaged."
        )
    return values.tolist()


def _divided(metadata: Metadata, divisors: list[float], base: float) -> dict[str, Any]:
    """Frequencies with divisors of their own: those of Llama 3 if they are, else as LongRoPE."""
    plain = rotary_frequencies(2 * len(divisors), base)
    factor = max(divisors)
    scaled = llama3_scaled(plain, factor, _LOW, _HIGH, _LLAMA3_LENGTH)
    # The file has them in float32.
    if factor > 1 and np.allclose(np.divide(plain, scaled), divisors, rtol=1e-4):
        return {
            "rope_type": "llama3",
            "factor": factor,
            "low_freq_factor": _LOW,
            "high_freq_factor": _HIGH,
            "original_max_position_embeddings": _LLAMA3_LENGTH,
        }
    return {
        "rope_type": "longrope",
        "short_factor": divisors,
        "long_factor": divisors,
        "attention_factor": 1.0,
        "factor": 1.0,
        "original_max_position_embeddings": metadata.whole("context_length"),
    }


def llama_config(metadata: Metadata) -> dict[str, Any]:
    """Llama, Mistral and SmolLM, which GGUF files call all "llama"."""
    checkpoint = metadata.checkpoint
    return decoder_config(metadata) | {
        "attention_bias": checkpoint.has("blk.0.attn_q.bias"),
        "mlp_bias": checkpoint.has("blk.0.ffn_gate.bias"),
    }


def phi3_config(metadata: Metadata) -> dict[str, Any]:
    """Phi-3, whose layers may see a window; what converters write for none is 0."""
    window = metadata.whole("attention.sliding_window", 0, least=0)
    config = decoder_config(metadata)
    rope = config["rope_parameters"]
    original = rope.get("original_max_position_embeddings", config["max_position_embeddings"])
    return config | {
        "sliding_window": window or None,
        "original_max_position_embeddings": original,
    }


def gemma2_config(metadata: Metadata) -> dict[str, Any]:
    """Gemma 2. By what scores are divided is in no field: llama.cpp knows it from the size."""
    config = decoder_config(metadata)
    # The 27B divides by the root of its width over heads, the others by that of the head's width.
    wide = config["num_hidden_layers"] == 46
    per_head = config["hidden_size"] // config["num_attention_heads"]
    return config | {
        "query_pre_attn_scalar": per_head if wide else config["head_dim"],
        "sliding_window": metadata.whole("attention.sliding_window", 4096),
        "attn_logit_softcapping": metadata.number("attn_logit_softcapping", 50.0),
        "final_logit_softcapping": metadata.number("final_logit_softcapping", 30.0),
    }


def gpt2_config(metadata: Metadata) -> dict[str, Any]:
    """GPT-2."""
    sizes = _with_learned_positions(metadata)
    return {
        "vocab_size": sizes["vocab_size"],
        "n_positions": sizes["max_position_embeddings"],
        "n_ctx": sizes["max_position_embeddings"],
        "n_embd": sizes["hidden_size"],
        "n_layer": sizes["num_hidden_layers"],
        "n_head": sizes["num_attention_heads"],
        "n_inner": sizes["intermediate_size"],
        "layer_norm_epsilon": sizes["layer_norm_eps"],
        "activation_function": "gelu_new",
        "tie_word_embeddings": not metadata.checkpoint.has("output.weight"),
    }


def bert_config(metadata: Metadata) -> dict[str, Any]:
    """BERT and MiniLM, whose vectors have length 1 as those of llama.cpp have."""
    types = metadata.checkpoint.shape("token_types.weight")
    config = _with_learned_positions(metadata) | {
        "type_vocab_size": types[0] if types else 0,
        "hidden_act": "gelu",
    }
    pooling = metadata.whole("pooling_type", 0, least=0)
    if pooling in _POOLINGS:
        config[SENTENCES] = {"pooling": _POOLINGS[pooling], "unit_length": True}
    return config


def _with_learned_positions(metadata: Metadata) -> dict[str, Any]:
    """What GPT-2 and BERT have in common."""
    hidden_dim, heads = metadata.whole("embedding_length"), metadata.whole("attention.head_count")
    width, length = metadata.whole("feed_forward_length"), metadata.whole("context_length")
    if hidden_dim % heads:
        raise metadata.wrong("attention.head_count", heads, f"a divisor of {hidden_dim}")
    metadata.expect_shape("position_embd.weight", (length, hidden_dim))
    metadata.expect_shape("blk.0.ffn_down.weight", (hidden_dim, width))
    return {
        "vocab_size": vocabulary_size(metadata, hidden_dim),
        "max_position_embeddings": length,
        "hidden_size": hidden_dim,
        "intermediate_size": width,
        "num_hidden_layers": layers(metadata),
        "num_attention_heads": heads,
        "layer_norm_eps": metadata.number("attention.layer_norm_epsilon"),
    }
