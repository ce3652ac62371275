"""Weights and tokenizers of Hugging Face, PyTorch and GGUF, in and out; certificates.

    model, tokenizer = interop.load("SmolLM2-135M")     # a folder or a .gguf file
    interop.save(model, "mine", tokenizer)              # transformers loads it

Loaded by name when first used: the process that renders a chat template loads no Keras.
"""

import importlib
from typing import Any

_MODULES = {
    "Certificate": "certificate",
    "CheckpointError": "checkpoint",
    "Tokenizer": "tokenizer",
    "TokenizerError": "tokenizer",
    "certify": "certificate",
    "config_of": "loading",
    "embed": "embedding",
    "from_torch": "torch_modules",
    "gradients_from_torch": "torch_modules",
    "load": "loading",
    "load_known": "known",
    "load_tokenizer": "tokenizer_files",
    "network": "loading",
    "open_checkpoint": "checkpoint",
    "path_of": "known",
    "save": "loading",
    "to_torch": "torch_modules",
    "write_checkpoint": "checkpoint",
}

__all__ = sorted(_MODULES)


def __getattr__(name: str) -> Any:
    """A public name, from its module."""
    if name in _MODULES:
        return getattr(importlib.import_module(f"tfbig.interop.{_MODULES[name]}"), name)
    raise AttributeError(f"module 'tfbig.interop' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
