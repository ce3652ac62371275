"""What the parts of a network share: they are passed in, written into a config, and copied.

A Transformer is put together from parts (a norm, an attention, a feed-forward) that are Keras
layers with a config. A stack makes its blocks as copies of one that it is given, so that a variant
is another part and never a flag.
"""

from typing import Any

import keras


def clone(part: Any, name: str | None = None) -> Any:
    """A new part of the same config, with weights of its own (None stays None).

    Args:
        part: a layer, or anything with `get_config` and `from_config`.
        name: of the copy; by default the name of the part.

    Raises:
        ValueError: if the part has weights already, which the copy would not have.

    >>> layer = keras.layers.Dense(3)
    >>> clone(layer, "other").units, clone(layer) is layer
    (3, False)
    """
    if part is None:
        return None
    if isinstance(part, keras.layers.Layer) and part.weights:
        raise ValueError(
            f"The part {part.name!r} is copied, without the weights that it has already: give one "
            f"that is not built, and set the weights of the copy."
        )
    config = dict(part.get_config())
    if name is not None:
        config["name"] = name
    return type(part).from_config(config)


def build_once(part: Any, *shapes: Any) -> None:
    """Builds a part, unless it has its weights already: those of another network, shared.

    >>> layer = keras.layers.Dense(3)
    >>> build_once(layer, (None, 2))
    >>> build_once(layer, (None, 2))
    >>> layer.kernel.shape
    TensorShape([2, 3])
    """
    if not part.built:
        part.build(*shapes)


def serialized(**parts: Any) -> dict[str, Any]:
    """The parts as they stand in a config.

    >>> serialized(norm=None, cap=30.0)
    {'norm': None, 'cap': 30.0}
    """
    return {
        name: _unbuilt(keras.saving.serialize_keras_object(part)) for name, part in parts.items()
    }


def _unbuilt(value: Any) -> Any:
    # Keras would build a part as it makes it again, and its owner then for a second time.
    if isinstance(value, list):
        return [_unbuilt(item) for item in value]
    if isinstance(value, dict):
        return {name: item for name, item in value.items() if name != "build_config"}
    return value


class Composite:
    """Mixed into a layer whose arguments are parts: its `from_config` makes them again.

    >>> issubclass(Composite, keras.layers.Layer)
    False
    """

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        """The layer of a config in which parts are written as Keras writes them."""
        return cls(**{name: _made(value) for name, value in config.items()})


class Network(Composite, keras.Model):
    """A network of parts: it knows all shapes without seeing data, so `build()` needs none.

    Its parts are used as they are, with the weights that they may have (those of another network,
    under another head), and each computes in its own dtype: `dtype` of a network does nothing. Set
    it with `keras.config.set_dtype_policy` before the parts are made.

    >>> issubclass(Network, keras.Model)
    True
    """

    def get_build_config(self) -> dict[str, Any]:
        """What a `.keras` file says of how it was built: that it was."""
        return {"built": True}

    def build_from_config(self, config: dict[str, Any]) -> None:
        """Builds a network that is read from a `.keras` file."""
        self.build()


def _made(value: Any) -> Any:
    if isinstance(value, dict) and "class_name" in value:
        return keras.saving.deserialize_keras_object(value)
    if isinstance(value, list) and any(isinstance(item, dict) for item in value):
        return [_made(item) for item in value]
    return value


def precise(dtype: str) -> str:
    """The dtype in which a sum over many numbers is taken: at least float32.

    >>> precise("bfloat16"), precise("float64")
    ('float32', 'float64')
    """
    dtype = keras.backend.standardize_dtype(dtype)
    return "float32" if dtype in ("float16", "bfloat16") else dtype
