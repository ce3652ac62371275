"""A GGUF file as a checkpoint of Hugging Face: its config, and its tensors by their names there.

llama.cpp's converter (`convert_hf_to_gguf.py`) changes more than names, and here it is undone:

- Llama's queries and keys: the rows of a head lie in pairs that are turned together, and in Hugging
  Face's the first half with the second.
- Gemma's norms: w is stored as 1 + w.
- GPT-2's kernels: (in, out) is stored as (out, in).
- Llama 3's scaled positions: the divisors of the frequencies are stored, a tensor.

A tied head has no tensor. Quantised tensors come out as float32. Left out, with an error: mixtures
of experts, and T5, whose two halves have metadata of their own.
"""

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tfbig.interop import gguf_configs
from tfbig.interop.checkpoint import Checkpoint
from tfbig.interop.gguf_configs import ConfigOf
from tfbig.interop.gguf_metadata import Metadata
from tfbig.interop.stored_tensor import CheckpointError, shown

Change = Callable[[np.ndarray, Mapping[str, Any]], np.ndarray]

_NAME = re.compile(r"(?:blk\.(?P<layer>\d+)\.)?(?P<stem>\w+)\.(?P<kind>weight|bias)")
# No weights: what is in the config by now, and what old converters wrote.
_LEFT_OUT = re.compile(r"rope_(freqs|factors_long|factors_short)\.weight|.*attn_rot_embd.*")

_AROUND = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_NORMS = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}
_ATTENTION = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
}
_GATED = {"ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}
_LLAMA = {**_NORMS, **_ATTENTION, **_GATED}


def in_halves(rows: np.ndarray, heads: int) -> np.ndarray:
    """Each head's rows 0, 1, 2, ... as 0, 2, ..., 1, 3, ...: pairs as halves.

    >>> in_halves(np.array([0, 10, 1, 11]), heads=1).tolist()
    [0, 1, 10, 11]
    """
    if rows.shape[0] % (2 * heads):
        raise CheckpointError(
            f"A tensor of queries or keys has {rows.shape[0]} rows, and {heads} heads of pairs "
            f"were expected: the file is damaged."
        )
    pairs = rows.reshape(heads, -1, 2, *rows.shape[1:])
    return pairs.swapaxes(1, 2).reshape(rows.shape)


def _query(array: np.ndarray, config: Mapping[str, Any]) -> np.ndarray:
    return in_halves(array, config["num_attention_heads"])


def _key(array: np.ndarray, config: Mapping[str, Any]) -> np.ndarray:
    return in_halves(array, config["num_key_value_heads"])


def _less_one(array: np.ndarray, config: Mapping[str, Any]) -> np.ndarray:
    return array.astype("float32") - 1


def _turned(array: np.ndarray, config: Mapping[str, Any]) -> np.ndarray:
    return array.T


@dataclasses.dataclass(frozen=True)
class Architecture:
    """How a `general.architecture` of llama.cpp is called by Hugging Face.

    Attributes:
        model_type: in config.json.
        model_class: in `architectures` there.
        config: the rest of it.
        around: the names outside of the blocks, without `.weight`.
        layer: what the names in a block begin with.
        block: the names in a block.
        changes: what is undone, by the name in the GGUF file.
    """

    model_type: str
    model_class: str
    config: ConfigOf
    around: Mapping[str, str]
    layer: str
    block: Mapping[str, str]
    changes: Mapping[str, Change] = dataclasses.field(default_factory=dict)


def _like_llama(
    model_type: str,
    model_class: str,
    config: ConfigOf,
    block: Mapping[str, str],
    changes: Mapping[str, Change] | None = None,
) -> Architecture:
    return Architecture(
        model_type, model_class, config, _AROUND, "model.layers.", block, changes or {}
    )


_QWEN3 = {**_LLAMA, "attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"}
_PHI3 = {
    **_NORMS,
    "attn_qkv": "self_attn.qkv_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_up": "mlp.gate_up_proj",
    "ffn_down": "mlp.down_proj",
}
_GEMMA2 = {
    **_ATTENTION,
    **_GATED,
    "attn_norm": "input_layernorm",
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
_GEMMA2_NORMS = ("output_norm", *(name for name in _GEMMA2 if name.endswith("norm")))

ARCHITECTURES = {
    "llama": _like_llama(
        "llama",
        "LlamaForCausalLM",
        gguf_configs.llama_config,
        _LLAMA,
        {"attn_q": _query, "attn_k": _key},
    ),
    "qwen2": _like_llama("qwen2", "Qwen2ForCausalLM", gguf_configs.decoder_config, _LLAMA),
    "qwen3": _like_llama("qwen3", "Qwen3ForCausalLM", gguf_configs.decoder_config, _QWEN3),
    "phi3": _like_llama("phi3", "Phi3ForCausalLM", gguf_configs.phi3_config, _PHI3),
    "gemma2": _like_llama(
        "gemma2",
        "Gemma2ForCausalLM",
        gguf_configs.gemma2_config,
        _GEMMA2,
        dict.fromkeys(_GEMMA2_NORMS, _less_one),
    ),
    "gpt2": Architecture(
        "gpt2",
        "GPT2LMHeadModel",
        gguf_configs.gpt2_config,
        {
            "token_embd": "transformer.wte",
            "position_embd": "transformer.wpe",
            "output_norm": "transformer.ln_f",
            "output": "lm_head",
        },
        "transformer.h.",
        {
            "attn_norm": "ln_1",
            "attn_qkv": "attn.c_attn",
            "attn_output": "attn.c_proj",
            "ffn_norm": "ln_2",
            "ffn_up": "mlp.c_fc",
            "ffn_down": "mlp.c_proj",
        },
        dict.fromkeys(("attn_qkv", "attn_output", "ffn_up", "ffn_down"), _turned),
    ),
    "bert": Architecture(
        "bert",
        "BertModel",
        gguf_configs.bert_config,
        {
            "token_embd": "embeddings.word_embeddings",
            "position_embd": "embeddings.position_embeddings",
            "token_types": "embeddings.token_type_embeddings",
            "token_embd_norm": "embeddings.LayerNorm",
        },
        "encoder.layer.",
        {
            "attn_q": "attention.self.query",
            "attn_k": "attention.self.key",
            "attn_v": "attention.self.value",
            "attn_output": "attention.output.dense",
            "attn_output_norm": "attention.output.LayerNorm",
            "ffn_up": "intermediate.dense",
            "ffn_down": "output.dense",
            "layer_output_norm": "output.LayerNorm",
        },
    ),
}


class HuggingFaceTensors:
    """The tensors of a GGUF file by the names of Hugging Face, read and changed one at a time.

    Args:
        checkpoint: of the file.
        architecture: tells the names and what is undone.
        config: of Hugging Face, for the heads.
    """

    def __init__(
        self, checkpoint: Checkpoint, architecture: Architecture, config: Mapping[str, Any]
    ) -> None:
        self._checkpoint = checkpoint
        self._config = config
        self._stored: dict[str, tuple[str, Change | None]] = {}
        for name in checkpoint.names():
            if not _LEFT_OUT.fullmatch(name):
                theirs, change = _translated(name, architecture)
                self._stored[theirs] = (name, change)

    def names(self) -> tuple[str, ...]:
        """All names; a tensor that is not known keeps its own."""
        return tuple(self._stored)

    def read(self, name: str) -> np.ndarray:
        """One tensor, as a safetensors file of the model has it.

        Raises:
            CheckpointError: if there is none of this name, or it cannot be read.
        """
        if name not in self._stored:
            raise CheckpointError(f"{self._checkpoint.path} has no tensor for {shown(name)}.")
        stored, change = self._stored[name]
        array = self._checkpoint.read(stored)
        return array if change is None else change(array, self._config)


def _translated(name: str, architecture: Architecture) -> tuple[str, Change | None]:
    found = _NAME.fullmatch(name)
    if found is None:
        return name, None
    layer, stem, kind = found["layer"], found["stem"], found["kind"]
    table = architecture.around if layer is None else architecture.block
    if stem not in table:
        return name, None
    prefix = "" if layer is None else f"{architecture.layer}{layer}."
    return f"{prefix}{table[stem]}.{kind}", architecture.changes.get(stem)


def as_hugging_face(checkpoint: Checkpoint) -> tuple[dict[str, Any], HuggingFaceTensors]:
    """The config.json and the tensors that Hugging Face would have of the model in a GGUF file.

    Args:
        checkpoint: of `open_checkpoint` on a GGUF file.

    Returns:
        The config, and what has `names()` and `read(name)`: for `tfbig.interop.loading.network`.

    Raises:
        CheckpointError: if the architecture is not known, or a field of the metadata is missing or
            is not that of the tensors.

    >>> from pathlib import Path
    >>> fields = {"general.architecture": "mamba"}
    >>> as_hugging_face(Checkpoint(Path("a.gguf"), "gguf", fields, {}, np.empty))
    Traceback (most recent call last):
    tfbig.interop.stored_tensor.CheckpointError: a.gguf: general.architecture is 'mamba', and ...
    """
    metadata = Metadata(checkpoint)
    if metadata.architecture not in ARCHITECTURES:
        raise CheckpointError(
            f"{checkpoint.path}: general.architecture is {shown(metadata.architecture)}, and "
            f"known are {sorted(ARCHITECTURES)}. Of another model, load the Hugging Face folder."
        )
    architecture = ARCHITECTURES[metadata.architecture]
    config = {
        "architectures": [architecture.model_class],
        "model_type": architecture.model_type,
        **architecture.config(metadata),
    }
    for ours, theirs in (("bos", "bos"), ("eos", "eos"), ("pad", "padding")):
        token = checkpoint.config.get(f"tokenizer.ggml.{theirs}_token_id")
        # Null, since where it is missing transformers takes that of the family's first model.
        config[f"{ours}_token_id"] = token if type(token) is int else None
    return config, HuggingFaceTensors(checkpoint, architecture, config)
