"""A family of models: what its config means, and what its tensors are called."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import keras
import numpy as np

from tfbig.interop.names import Name
from tfbig.interop.stored_tensor import CheckpointError, shown

Config = Mapping[str, Any]


def _as_they_are(tensors: Any) -> Any:
    return tensors


def _as_it_is(name: str, array: np.ndarray) -> Iterable[tuple[str, np.ndarray]]:
    return [(name, array)]


@dataclasses.dataclass(frozen=True)
class Family:
    """How a model type of Hugging Face is built here.

    Attributes:
        model_types: the values of `model_type` in config.json.
        build: config to a network, not built yet.
        names: config and network to the table of names.
        prefix: what the names of a model with a head begin with, and those of a bare one need not.
        ignored: patterns of tensors that hold no weights (masks, position ids), or copies of some.
        carried: patterns of weights that the network does not compute with (a pooler): they are
            kept beside it, and `save` writes them out again.
        aliases: pairs of a pattern and its replacement that turn other spellings of a name into the
            table's.
        joined: tensors (of `names()` and `read(name)`) under the names of the table, where files
            have them in pieces: Mixtral's experts. By default they are as the table has them.
        parted: the way back: a tensor of the table, with its name, as a file has it.
    """

    model_types: tuple[str, ...]
    build: Callable[[Config], keras.Model]
    names: Callable[[Config, keras.Model], list[Name]]
    prefix: str = ""
    ignored: tuple[str, ...] = ()
    carried: tuple[str, ...] = ()
    aliases: tuple[tuple[str, str], ...] = ()
    joined: Callable[[Any], Any] = _as_they_are
    parted: Callable[[str, np.ndarray], Iterable[tuple[str, np.ndarray]]] = _as_it_is


def field(config: Config, name: str) -> Any:
    """A field that the config must have.

    >>> field({"hidden_size": 8}, "hidden_size")
    8
    """
    if config.get(name) is None:
        raise CheckpointError(
            f"config.json of a {config.get('model_type')!r} has no {name!r}: it is of another "
            f"model, or damaged. It has {sorted(config)}."
        )
    return config[name]


def option(config: Config, name: str, default: Any) -> Any:
    """A field that the config may lack, or have as null: then the default of `transformers`.

    Args:
        config: what config.json says.
        name: of the field.
        default: tells the type that is expected, too; an int is a float.

    Raises:
        CheckpointError: if the field is of another type.

    >>> option({"layer_norm_eps": None}, "layer_norm_eps", 1e-12)
    1e-12
    """
    value = config.get(name)
    if value is None:
        return default
    expected = (int, float) if isinstance(default, float) else type(default)
    # True is an int, too.
    if not isinstance(value, expected) or (type(value) is bool and type(default) is not bool):
        raise CheckpointError(
            f"config.json: {name!r} is {shown(value)}, and a {type(default).__name__} was "
            f"expected, such as {default!r}. The file is damaged."
        )
    return value


def head_dim(hidden_dim: int, num_heads: int) -> int:
    """The dimensions of each head, where all heads together have those of the states.

    Raises:
        CheckpointError: if they do not share them evenly.

    >>> head_dim(768, 12)
    64
    """
    if num_heads < 1 or hidden_dim < num_heads or hidden_dim % num_heads:
        raise CheckpointError(
            f"config.json: {hidden_dim} dimensions are not to be shared by {num_heads} heads: it "
            f"is of another model, or damaged."
        )
    return hidden_dim // num_heads


def num_classes(config: Config) -> int:
    """How many classes a classifier has: config.json names them, where they are not two.

    >>> num_classes({"id2label": {"0": "bad", "1": "fair", "2": "good"}}), num_classes({})
    (3, 2)
    """
    labels = option(config, "id2label", {})
    return len(labels) or option(config, "num_labels", 2)


def architecture(config: Config) -> str:
    """The first of config.json's `architectures`, or "".

    >>> architecture({"architectures": ["GPT2LMHeadModel"]})
    'GPT2LMHeadModel'
    """
    return (config.get("architectures") or [""])[0]


def activation(name: str) -> Any:
    """The activation that PyTorch's models name so.

    >>> activation("gelu_new").__name__
    'gelu_tanh'
    """
    from tfbig.models import gelu_tanh, quick_gelu

    known = {
        "gelu": "gelu",
        "gelu_new": gelu_tanh,
        "gelu_pytorch_tanh": gelu_tanh,
        "gelu_fast": gelu_tanh,
        "quick_gelu": quick_gelu,
        "silu": "silu",
        "swish": "silu",
        "relu": "relu",
        "tanh": "tanh",
    }
    if name not in known:
        raise CheckpointError(f"config.json: activation {name!r} is none of {sorted(known)}.")
    return known[name]
