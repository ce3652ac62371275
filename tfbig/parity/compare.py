"""compare: the gradients of stock `model.fit` beside those of a loop, on one batch.

Both drivers start from identical weights, slots, seeds and batch; a probe takes the optimizer's
place and writes down what each hands to it. Afterwards the model is as it was.
"""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfbig.parity import state as states
from tfbig.parity.probe import probing
from tfbig.parity.report import Report, rows
from tfbig.training import Loop, surgery

UserLoop = Callable[[keras.Model, Any, Any, Any], Any]


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
    states.build(model, x, y, sample_weight)
    with states.unchanged(model):
        reference = fit_gradients(model, x, y, sample_weight)
    with states.unchanged(model):
        if loop is None:
            candidate = _gradients(
                model, lambda: _fit_once(model, x, y, sample_weight, Loop(model).fit), "the loop"
            )
        else:
            fresh = _retraced(loop)
            candidate = _gradients(
                model, lambda: fresh(model, *states.tensors(x, y, sample_weight)), "the loop"
            )
    variables = list(model.trainable_variables)
    return Report(
        rows=rows([v.path for v in variables], reference, candidate),
        tolerance=_tolerance(model) if tolerance is None else tolerance,
        independent=not surgery.overrides_train_step(model) or loop is not None,
    )


def fit_gradients(
    model: keras.Model,
    x: Any,
    y: Any,
    sample_weight: Any,
    class_weight: dict[int, float] | None = None,
) -> list[np.ndarray | None]:
    """The gradients that `model.fit` hands to the optimizer in one step on a batch."""

    def fit(*data: Any, **options: Any) -> Any:
        return model.fit(*data, class_weight=class_weight, **options)

    return _gradients(model, lambda: _fit_once(model, x, y, sample_weight, fit), "model.fit")


def _fit_once(model: keras.Model, x: Any, y: Any, sample_weight: Any, fit: Any) -> None:
    fit(
        x,
        y,
        sample_weight=sample_weight,
        batch_size=states.size(x),
        shuffle=False,
        verbose=0,
        epochs=1,
    )


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
    if moved and who == "model.fit":
        raise ValueError(
            f"The forward pass itself changes {moved[0]} (as SpectralNormalization does): what "
            f"fit and a loop do to it cannot be told apart from that. Compare without the layer."
        )
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


def _tolerance(model: keras.Model) -> float:
    if states.in_half_precision(model):
        return 2e-2
    return 1e-5 if model.jit_compile else 1e-6
