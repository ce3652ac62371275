"""A family of models: what its config means, and what its tensors are called."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import keras
import numpy as np

from tfbig.interop.names import Name
from tfbig.interop.stored_tensor import CheckpointError, shown

Config = Mapping[str, Any]
Value = TypeVar("Value")

# Of one axis, above any model's: Llama 4 has 10,485,760 positions.
LARGEST_SIZE = 2**24
LARGEST_NUMBER = 1e12
_KINDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    list: "a list",
    dict: "an object",
}
# What the families call the number of their blocks.
_LAYERS = (
    "num_hidden_layers",
    "n_layer",
    "n_layers",
    "num_layers",
    "num_decoder_layers",
    "encoder_layers",
    "decoder_layers",
)


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


def field(config: Config, name: str) -> int:
    """A size that the config must have: a whole number of 1 or more.

    Raises:
        CheckpointError: if it is missing, or is none.

    >>> field({"hidden_size": 8}, "hidden_size")
    8
    """
    if config.get(name) is None:
        raise CheckpointError(
            f"config.json of a {shown(config.get('model_type'))} has no {name!r}: it is of another "
            f"model, or damaged. It has {shown(sorted(config))}."
        )
    return option(config, name, 1)


def option(
    config: Config,
    name: str,
    default: Value,
    least: float | None = None,
    most: float | None = None,
) -> Value:
    """A field that the config may lack, or have as null: then the default of `transformers`.

    Args:
        config: what config.json says.
        name: of the field.
        default: tells the type that is expected, too; an int is a float.
        least: the smallest number; None: 1 of whole numbers, which are sizes, and 0 of others.
        most: the largest; None: `LARGEST_SIZE` of whole numbers, `LARGEST_NUMBER` of others.

    Raises:
        CheckpointError: if the field is of another type, or out of its range.

    >>> option({"layer_norm_eps": None}, "layer_norm_eps", 1e-12)
    1e-12
    >>> option({"hidden_size": -16}, "hidden_size", 768)
    Traceback (most recent call last):
    tfbig.interop.stored_tensor.CheckpointError: config.json: 'hidden_size' is -16, and a whole ...
    """
    value, kind = config.get(name), type(default)
    if value is None:
        return default
    expected = _KINDS[kind]
    # True is an int, too.
    fits = isinstance(value, int | float if kind is float else kind) and (
        type(value) is not bool or kind is bool
    )
    if kind is int or kind is float:
        low = (1 if kind is int else 0) if least is None else least
        high = (LARGEST_SIZE if kind is int else LARGEST_NUMBER) if most is None else most
        expected += f" from {low} to {high}"
        # NaN is in no range.
        fits = fits and low <= value <= high
    if not fits:
        raise CheckpointError(
            f"config.json: {name!r} is {shown(value)}, and {expected} was expected. The file is "
            f"damaged, or of another model."
        )
    return float(value) if kind is float else value  # type: ignore[return-value]


def optional(config: Config, name: str, default: Value) -> Value | None:
    """As `option`, of a field whose null says that there is none of it.

    >>> optional({"sliding_window": None}, "sliding_window", 4096), optional({}, "window", 4096)
    (None, 4096)
    """
    return None if name in config and config[name] is None else option(config, name, default)


def rate(config: Config, name: str, default: float) -> float:
    """A rate of dropout, from 0 to 1.

    >>> rate({}, "attention_dropout", 0.1)
    0.1
    """
    return option(config, name, default, most=1.0)


def check_layers(config: Config, tensors: int) -> None:
    """Checks, before a block is made, that not more are asked for than the tensors can fill.

    A hundred are made without any, for the message that names what is missing.

    Args:
        config: what config.json says, its halves (CLIP's) too.
        tensors: how many there are.

    Raises:
        CheckpointError: if it has more layers than tensors.

    >>> check_layers({"n_layer": 10**6}, tensors=148)
    Traceback (most recent call last):
    tfbig.interop.stored_tensor.CheckpointError: config.json: 'n_layer' is 1000000, and there are...
    """
    halves = [value for value in config.values() if isinstance(value, dict)]
    for one in (config, *halves):
        for name in _LAYERS:
            count = one.get(name)
            if isinstance(count, int | float) and count > max(tensors, 100):
                raise CheckpointError(
                    f"config.json: {name!r} is {shown(count)}, and there are {tensors} tensors: it "
                    f"is of another model, or damaged."
                )


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
    labels: dict[str, str] = option(config, "id2label", {})
    return len(labels) or option(config, "num_labels", 2)


def architecture(config: Config) -> str:
    """The first of config.json's `architectures`, or "".

    Raises:
        CheckpointError: if they are no list of names.

    >>> architecture({"architectures": ["GPT2LMHeadModel"]})
    'GPT2LMHeadModel'
    """
    names: list[Any] = option(config, "architectures", [])
    if names and not isinstance(names[0], str):
        raise CheckpointError(
            f"config.json: architectures is {shown(names)}, and a list of names was expected, such "
            f"as ['GPT2LMHeadModel']. The file is damaged."
        )
    return names[0] if names else ""


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
        raise CheckpointError(f"config.json: activation {shown(name)} is none of {sorted(known)}.")
    return known[name]
