"""compare: the gradients of stock `model.fit` beside those of a loop, on one batch.

Both drivers start from identical weights, slots, seeds and batch; a probe takes the optimizer's
place and writes down what each hands to it. Afterwards the model is as it was.
"""

import contextlib
import random
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfbig.parity.probe import probing
from tfbig.parity.report import Report, rows
from tfbig.training import Loop, surgery

UserLoop = Callable[[keras.Model, Any, Any, Any], Any]


class ParityError(AssertionError):
    """A loop whose gradients are not those of `model.fit`; the message is the report."""


def compare(
    model: keras.Model,
    x: Any,
    y: Any = None,
    sample_weight: Any = None,
    loop: UserLoop | None = None,
    tolerance: float | None = None,
) -> Report:
    """Compares the gradients of stock `model.fit` with those of a loop.

    Args:
        model: a compiled Keras model; it is left as it was.
        x, y, sample_weight: one batch, each `(batch, ...)` or a nest of such.
        loop: a callable `(model, x, y, sample_weight)` that takes one step and applies gradients
            through `model.optimizer`; tfbig's own loop by default. A `tf.function` that was traced
            before is traced anew.
        tolerance: the largest error that still counts as equal: 1e-6 in float32, 1e-5 under XLA,
            which reorders sums, and 2e-2 in half precision (2^-8 and some steps) by default.

    Returns:
        The report: one row for each variable.

    Raises:
        ValueError: if the model is not compiled, or if the loop never applied a gradient through
            `model.optimizer`, or changed the weights past it.

    >>> import numpy as np
    >>> model = keras.Sequential([keras.layers.Dense(3, "relu"), keras.layers.Dense(1)])
    >>> model.compile("adam", "mse")
    >>> report = compare(model, np.ones((4, 2)), np.ones((4, 1)))
    >>> report.matches, report.max_relative_error <= 1e-6
    (True, True)
    """
    if not model.compiled:
        raise ValueError("The model is not compiled: call model.compile(optimizer, loss) first.")
    _build(model, x, y, sample_weight)
    with _unchanged(model):
        reference = _gradients(model, lambda: _fit_once(model, x, y, sample_weight), "model.fit")
    with _unchanged(model):
        if loop is None:
            candidate = _gradients(
                model, lambda: _fit_once(model, x, y, sample_weight, Loop(model).fit), "the loop"
            )
        else:
            fresh = _retraced(loop)
            candidate = _gradients(
                model, lambda: fresh(model, *_tensors(x, y, sample_weight)), "the loop"
            )
    variables = list(model.trainable_variables)
    return Report(
        rows=rows([v.path for v in variables], reference, candidate),
        tolerance=_tolerance(model) if tolerance is None else tolerance,
        independent=not surgery.overrides_train_step(model) or loop is not None,
    )


def assert_same(
    model: keras.Model,
    x: Any,
    y: Any = None,
    sample_weight: Any = None,
    loop: UserLoop | None = None,
    tolerance: float | None = None,
) -> Report:
    """`compare` for tests: raises `ParityError`, with the table, where gradients differ."""
    report = compare(model, x, y, sample_weight, loop, tolerance)
    if not report.matches:
        raise ParityError(str(report))
    return report


def _fit_once(model: keras.Model, x: Any, y: Any, sample_weight: Any, fit: Any = None) -> None:
    size = len(next(leaf for leaf in keras.tree.flatten(x) if leaf is not None))
    (fit or model.fit)(
        x, y, sample_weight=sample_weight, batch_size=size, shuffle=False, verbose=0, epochs=1
    )


def _build(model: keras.Model, x: Any, y: Any, sample_weight: Any) -> None:
    """Creates every variable before anything is compared, and leaves no trace but that."""
    if model.built and model.optimizer.built:
        return
    with _random_state():
        if not all(layer.built for layer in (model, *surgery.flatten_layers(model))):
            surgery.build(model, _tensors(x, y, sample_weight))
        surgery.build_optimizer(model)


def _gradients(model: keras.Model, step: Callable[[], Any], who: str) -> list[np.ndarray | None]:
    """What a driver hands to the optimizer in one step."""
    before = [v.numpy() for v in model.trainable_variables]
    with probing(model) as probe:
        step()
        calls, gradients = probe.calls(), probe.gradients()
    moved = [
        v.path
        for v, old in zip(model.trainable_variables, before, strict=True)
        if not np.array_equal(v.numpy(), old, equal_nan=True)
    ]
    if moved:
        raise ValueError(
            f"{who} changed {moved[0]} past model.optimizer. A loop under comparison applies its "
            f"gradients through model.optimizer (an optimizer of its own, or a tf.function inside "
            f"that was traced before, does not)."
        )
    if calls == 0:
        raise ValueError(
            f"{who} never applied a gradient through model.optimizer. Call "
            f"model.optimizer.apply_gradients inside it, and pass a nested tf.function as the loop "
            f"itself, so that it can be traced anew."
        )
    return gradients


def _retraced(loop: UserLoop) -> UserLoop:
    """The loop with no memory of the optimizer that it was traced with."""
    if isinstance(loop, tf.types.experimental.PolymorphicFunction):
        return tf.function(loop.python_function)
    return loop


def _tensors(x: Any, y: Any, sample_weight: Any) -> tuple:
    def tensor(leaf: Any) -> Any:
        if leaf is None:
            return None
        leaf = tf.convert_to_tensor(leaf)
        return tf.cast(leaf, keras.backend.floatx()) if leaf.dtype.is_floating else leaf

    return tuple(keras.tree.map_structure(tensor, (x, y, sample_weight)))


def _tolerance(model: keras.Model) -> float:
    policies = {layer.dtype_policy.compute_dtype for layer in surgery.flatten_layers(model)}
    if policies & {"float16", "bfloat16"}:
        return 2e-2
    return 1e-5 if model.jit_compile else 1e-6


@contextlib.contextmanager
def _random_state() -> Iterator[None]:
    states = random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])


@contextlib.contextmanager
def _unchanged(model: keras.Model) -> Iterator[None]:
    """Puts weights, statistics, seeds, slots, metrics and history back as they were."""
    variables = [*model.variables, *model.metrics_variables, *model.optimizer.variables]
    seeds = surgery.global_seed_state()
    variables.extend(seeds)
    values = [v.numpy() for v in variables]
    history, stop = surgery.history(model), model.stop_training
    with _random_state(), warnings.catch_warnings():
        # Of a variable without gradient Keras warns here as it will in training.
        warnings.filterwarnings("ignore", message="Gradients do not exist")
        try:
            yield
        finally:
            for variable, value in zip(variables, values, strict=True):
                variable.assign(value)
            model.stop_training = stop
            surgery.set_history(model, history)
