"""The state of a model as a value: taken, put back, compared.

Whoever compares two drivers runs both from one state, and leaves the model as it was. The state is
all that a step may change: weights, statistics, states of seeds, metrics, the optimizer's slots,
the generators of Python and NumPy, the history.
"""

import contextlib
import dataclasses
import random
import warnings
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfbig.training import anatomy, surgery

HALF = {"float16", "bfloat16"}


@dataclasses.dataclass(frozen=True)
class State:
    """Values of variables, in the order of `variables(model)` and of the optimizer's own.

    Attributes:
        values: of the model's variables: weights, statistics, seeds, metrics.
        slots: of the model's optimizer.
    """

    values: tuple[np.ndarray, ...]
    slots: tuple[np.ndarray, ...]


def variables(model: keras.Model) -> list[keras.Variable]:
    """All variables of a model that a step may change: weights, statistics, seeds, metrics."""
    found = {id(v): v for v in (*model.variables, *model.metrics_variables)}
    return [*found.values(), *surgery.global_seed_state()]


def take(model: keras.Model) -> State:
    """The model's state at this moment."""
    return State(
        tuple(anatomy.value(v) for v in variables(model)),
        tuple(anatomy.value(v) for v in model.optimizer.variables),
    )


def put(model: keras.Model, state: State, slots: bool = True) -> None:
    """Gives a model a state that was taken from it.

    Args:
        model: the model of which the state is.
        state: see `take`.
        slots: whether the optimizer gets its slots too.
    """
    # Metrics and global seeds that came to be since then are at the end, and stay.
    assign(variables(model), state.values)
    if slots:
        assign(model.optimizer.variables, state.slots)


def assign(variables_: list[keras.Variable], values: tuple[np.ndarray, ...]) -> None:
    """Assigns what has changed."""
    for variable, value in zip(variables_, values):
        if not np.array_equal(variable.numpy(), value):
            variable.assign(value)


def trainable(model: keras.Model, state: State) -> list[np.ndarray]:
    """Of a state the weights that are trained, in the order of `model.trainable_variables`."""
    of = {id(v): value for v, value in zip(variables(model), state.values)}
    return [of[id(v)] for v in model.trainable_variables]


def tensors(*batch: Any) -> tuple:
    """A batch as tensors, floats in Keras's float type, as `fit` hands it to a step."""

    def tensor(leaf: Any) -> Any:
        if leaf is None:
            return None
        leaf = tf.convert_to_tensor(leaf)
        return tf.cast(leaf, keras.backend.floatx()) if leaf.dtype.is_floating else leaf

    return tuple(keras.tree.map_structure(tensor, batch))


def array(leaf: Any) -> np.ndarray:
    """A tensor or an array as an array, floats in Keras's float type: as a model takes it."""
    values = np.asarray(leaf)
    return values.astype(keras.backend.floatx()) if values.dtype.kind == "f" else values


def size(x: Any) -> int:
    """The number of examples in a batch or in a data set of arrays."""
    return len(next(leaf for leaf in keras.tree.flatten(x) if leaf is not None))


def build(model: keras.Model, x: Any, y: Any, sample_weight: Any) -> None:
    """Creates every variable before anything is compared, and leaves no trace but that."""
    if not isinstance(model, keras.Model):
        raise TypeError(f"A keras.Model is expected, and {type(model).__name__} was given.")
    if not model.compiled or model.optimizer is None:
        raise ValueError("The model is not compiled: call model.compile(optimizer, loss) first.")
    check_arrays(x, "x")
    if y is None and model.loss is not None:
        raise ValueError("y is missing: the model is compiled with a loss, which needs it.")
    check_arrays(y, "y")
    if model.built and model.optimizer.built:
        return
    with random_state():
        if not all(layer.built for layer in (model, *surgery.flatten_layers(model))):
            surgery.build(model, tensors(x, y, sample_weight))
        # Slots are made where the weights are, under their strategy.
        strategy = model.distribute_strategy
        own = strategy is not tf.distribute.get_strategy()
        with strategy.scope() if own else contextlib.nullcontext():
            surgery.build_optimizer(model)


def check_arrays(data: Any, name: str) -> None:
    """That data are arrays with a row for each example.

    Raises:
        ValueError: if they are not.
    """
    if isinstance(data, (list, tuple)) and name == "x" and len(data) in (2, 3):
        hint = " If it is a batch (x, y), write diagnose(model, *batch)."
    else:
        hint = ""
    for leaf in keras.tree.flatten(data):
        if leaf is None:
            continue
        shape = getattr(leaf, "shape", None)
        if shape is None or len(shape) == 0 or 0 in tuple(shape)[:1]:
            found = f"a {type(leaf).__name__}" if not shape else f"shape {tuple(shape)}"
            raise ValueError(
                f"{name} holds {found}: NumPy arrays or tensors of shape (batch, ...) are "
                f"expected, with at least one example.{hint}"
            )


def in_half_precision(model: keras.Model) -> bool:
    """Whether a layer computes in float16 or bfloat16."""
    layers = surgery.flatten_layers(model)
    return any(layer.dtype_policy.compute_dtype in HALF for layer in layers)


@contextlib.contextmanager
def random_state() -> Iterator[None]:
    """Puts the generators of Python and NumPy back as they were."""
    states = random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])


@contextlib.contextmanager
def unchanged(model: keras.Model) -> Iterator[None]:
    """Puts weights, statistics, seeds, slots, metrics and history back as they were."""
    optimizer = model.optimizer
    flags = [(layer, layer.trainable) for layer in surgery.flatten_layers(model)]
    before = [*variables(model), *optimizer.variables]
    values = tuple(v.numpy() for v in before)
    history, stop = surgery.history(model), model.stop_training
    logger = tf.get_logger()
    level = logger.level
    logger.setLevel("ERROR")  # each driver is traced anew, of which TensorFlow would warn
    with random_state(), warnings.catch_warnings():
        # Of a variable without gradient Keras warns here as it will in training.
        warnings.filterwarnings("ignore", message="Gradients do not exist")
        try:
            yield
        finally:
            logger.setLevel(level)
            if model.optimizer is not optimizer:
                model.optimizer = optimizer
            for layer, trainable in flags:
                if layer.trainable != trainable:
                    layer.trainable = trainable
            assign(before, values)
            model.stop_training = stop
            surgery.set_history(model, history)
