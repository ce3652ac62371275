"""tfbig: big models in TensorFlow and Keras 3, trained by `fit` and by hand, with proof.

The rooms are loaded when they are first used; `import tfbig` itself loads nothing.
"""

import importlib
from typing import Any

from tfbig import _registration

__version__ = "0.1.0"

_ROOMS = (
    "compat",
    "data",
    "generation",
    "interop",
    "models",
    "parity",
    "recipes",
    "training",
)

__all__ = ["__version__", *_ROOMS]

_registration.when_keras_is_loaded()


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return importlib.import_module(f"tfbig.{name}")
    raise AttributeError(f"module 'tfbig' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
