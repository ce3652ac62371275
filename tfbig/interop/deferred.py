"""Variables that are made when their tensor is read: no zeros or random numbers before it.

Inside a `keras.StatelessScope` a layer that is built notes the shape, dtype and initializer of its
variables, and Keras makes them at the scope's end, one after the other. So the whole network is
known, and the table of names made, before the first variable takes memory; and then its initializer
reads its tensor. At most one tensor of the checkpoint is in memory beside the weights (a few, where
one tensor holds several variables).

Zeros that are assigned to later would take more: TensorFlow's allocator on a CPU keeps what it has
freed, and SmolLM2's peak was 918 MB where it is 589 MB this way (513 MB of weights).
"""

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import keras
import numpy as np

from tfbig.interop.names import Name, to_ours, variable
from tfbig.training import surgery

_LOCK = threading.Lock()


class Tensors(Protocol):
    """What holds tensors by name: an open checkpoint, or a PyTorch module."""

    def names(self) -> tuple[str, ...]:
        """All names."""

    def read(self, name: str) -> np.ndarray:
        """One tensor."""


class DeferredInitializer:
    """The initializer of a variable: what it is given to take by then, else zeros.

    Attributes:
        take: gives the array; None: there is none.
    """

    def __init__(self) -> None:
        self.take: Callable[[], np.ndarray] | None = None

    def __call__(self, shape: Any, dtype: Any = None) -> Any:
        if self.take is None:
            return keras.ops.zeros(shape, dtype)
        return keras.ops.convert_to_tensor(np.asarray(self.take(), dtype), dtype)


@contextlib.contextmanager
def deferred_variables() -> Iterator[dict[int, DeferredInitializer]]:
    """Within it, layers note their variables; they are made at its end.

    It gives the initializers of those that layers of this thread added, by the `id` of the
    variable. After an error, inside or while they are made, none more is made.

    >>> dense = keras.layers.Dense(2)
    >>> with deferred_variables() as deferred:
    ...     dense.build((None, 1))
    ...     deferred[id(dense.kernel)].take = lambda: np.array([[3.0, 4.0]])
    >>> keras.ops.convert_to_numpy(dense.kernel).tolist(), float(dense.bias[0])
    ([[3.0, 4.0]], 0.0)
    """
    original = keras.layers.Layer.add_weight
    deferred: dict[int, DeferredInitializer] = {}
    thread = threading.get_ident()

    def add_weight(self: Any, shape: Any = None, initializer: Any = None, *args: Any, **kw: Any):
        if threading.get_ident() != thread:
            return original(self, shape, initializer, *args, **kw)
        instead = DeferredInitializer()
        made = original(self, shape, instead, *args, **kw)
        deferred[id(made)] = instead
        return made

    with _LOCK:
        keras.layers.Layer.add_weight = add_weight
        try:
            with _forgotten_after_an_error(), keras.StatelessScope(), _forgotten_after_an_error():
                yield deferred
        finally:
            keras.layers.Layer.add_weight = original


@contextlib.contextmanager
def _forgotten_after_an_error() -> Iterator[None]:
    """Keras makes what was noted also after an error, and what is left over with the next scope."""
    try:
        yield
    except BaseException:
        surgery.forget_deferred_variables()
        raise


def give(
    names: list[Name],
    model: keras.Model,
    tensors: Tensors,
    deferred: Mapping[int, DeferredInitializer],
) -> None:
    """Tells each variable which tensor it will be made of.

    Args:
        names: the table.
        model: the network, built within `deferred_variables`.
        tensors: what is read.
        deferred: what `deferred_variables` gives.
    """
    for name in names:
        variables = [variable(model, path) for path in name.paths]
        source = Source(name, tensors, [tuple(v.shape) for v in variables])
        for place, target in enumerate(variables):
            deferred[id(target)].take = functools.partial(source.take, place)


class Source:
    """A tensor of a checkpoint, which is read when the first of its variables is made.

    Args:
        name: of the table.
        tensors: where it is read.
        shapes: of its variables.
    """

    def __init__(self, name: Name, tensors: Tensors, shapes: list[tuple[int, ...]]) -> None:
        self.name = name
        self._tensors = tensors
        self._shapes = shapes
        self._arrays: dict[int, np.ndarray] = {}

    def take(self, place: int) -> np.ndarray:
        """The array of one of its variables, which is not kept."""
        if place not in self._arrays:
            arrays = to_ours(self.name, self._tensors.read(self.name.theirs), self._shapes)
            self._arrays = dict(enumerate(arrays))
        return self._arrays.pop(place)
