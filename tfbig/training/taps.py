"""Taps: see what a layer put out, from outside, and leave no trace.

    with tap(network, "dense2") as seen:
        network(x)
    seen["neural_network/dense2"]        # a list: one output for each call of the layer

A tap works on any model, also a subclassed one, also inside `fit` and `predict`: the model's
compiled functions are set aside while it is open, and put back afterwards, so the tapped layers are
traced with their taps. What comes out can be used: a tensor of the code around the tap
(differentiable under a tape that is open there), or, when the layer ran inside a compiled function,
a NumPy array of what it computed. A tensor of a graph that has been left is never handed out.

Limits: a `tf.function` of one's own that was traced before does not see the tap. XLA cannot call
back, so a model of `jit_compile=True` runs as a plain graph while it is tapped.
"""

import contextlib
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf

from tfbig.training import surgery
from tfbig.training import where as where_module


@contextlib.contextmanager
def tap(model: keras.Layer, where: where_module.Where = "") -> Iterator[dict[str, list[Any]]]:
    """Records the outputs of chosen layers for as long as it is open.

    Args:
        model: a Keras model or layer.
        where: which of the layers inside it: see `tfbig.training.where`.

    Yields:
        A dict from the layer's path to the list of its outputs, one for each call, in order. The
        path is that of the layer when the tap is read: it is known once the layer is built.

    Raises:
        ValueError: if `where` means no layer.

    >>> import numpy as np
    >>> from tfbig.models import NeuralNetwork
    >>> model = NeuralNetwork((2,), name="net")
    >>> model.build((None, 3))
    >>> with tap(model, "dense1") as seen:
    ...     y = model(np.ones((4, 3)))
    >>> [tuple(output.shape) for output in seen["net/dense1"]]
    [(4, 2)]
    """
    home = _graph()
    seen: dict[str, list[Any]] = defaultdict(list)
    with contextlib.ExitStack() as stack:
        if isinstance(model, keras.Model):
            stack.callback(surgery.forget_compiled_functions(model))
            stack.enter_context(_without_xla(model))
        for layer in where_module.layers(model, where):
            stack.enter_context(_recording(layer, seen, home))
        yield seen


def _graph() -> Any:
    """The graph that is being built, or `None` in eager execution."""
    return None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()


@contextlib.contextmanager
def _without_xla(model: keras.Model) -> Iterator[None]:
    before = model.jit_compile
    model.jit_compile = False
    try:
        yield
    finally:
        model.jit_compile = before


@contextlib.contextmanager
def _recording(layer: keras.Layer, seen: dict[str, list], home: Any) -> Iterator[None]:
    original = layer.call

    def call(*args: Any, **kwargs: Any) -> Any:
        output = original(*args, **kwargs)
        _record(seen[where_module.path(layer)], output, home)
        return output

    # On the instance, past Keras's own bookkeeping of attributes.
    object.__setattr__(layer, "call", call)
    try:
        yield
    finally:
        object.__delattr__(layer, "call")


def _record(outputs: list, output: Any, home: Any) -> None:
    leaves = keras.tree.flatten(output)
    if any(isinstance(leaf, keras.KerasTensor) for leaf in leaves):
        return  # a shape is being inferred: nothing is computed
    if _graph() is home:
        outputs.append(output)
        return

    def store(*arrays: Any) -> None:
        outputs.append(keras.tree.pack_sequence_as(output, list(arrays)))

    # The compiled function calls back with arrays each time it runs.
    tf.numpy_function(store, leaves, [])
