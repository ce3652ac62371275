"""Generation: the compiled prefill and step, samplers, beams, streaming, for any language model.

Loaded by name when first used: the samplers need no TensorFlow. So no module here has the name of a
public function, which it would hide once it is loaded.
"""

import importlib
from typing import Any

_MODULES = {
    "Beam": "beam",
    "Chain": "samplers",
    "Forbidden": "forbidden",
    "Generated": "tokens",
    "GeneratedText": "text",
    "Greedy": "samplers",
    "MinP": "samplers",
    "RepetitionPenalty": "samplers",
    "Sampler": "samplers",
    "Temperature": "samplers",
    "TopK": "samplers",
    "TopP": "samplers",
    "beam_search": "beam",
    "generate": "tokens",
    "generate_text": "text",
    "sampler_of": "samplers",
    "stream": "text",
}

__all__ = sorted(_MODULES)


def __getattr__(name: str) -> Any:
    """A public name, from its module."""
    if name in _MODULES:
        return getattr(importlib.import_module(f"tfbig.generation.{_MODULES[name]}"), name)
    raise AttributeError(f"module 'tfbig.generation' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
