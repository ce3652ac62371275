"""Guards for a loop: in a test, and in a long training."""

import dataclasses
import warnings
from typing import Any

import keras

from tfbig.parity import state as states
from tfbig.parity.compare import UserLoop, compare
from tfbig.parity.diagnose import diagnose
from tfbig.parity.report import Report
from tfbig.training import anatomy


class ParityError(AssertionError):
    """A loop that does not do what `model.fit` does; the message is the diagnosis."""


def assert_same(
    model: keras.Model,
    x: Any,
    y: Any = None,
    sample_weight: Any = None,
    loop: UserLoop | None = None,
    tolerance: float | None = None,
) -> Report:
    """For tests: that a loop does what `model.fit` does.

    A loop of the user's is diagnosed: gradients, update and state. tfbig's own (`loop=None`) is
    compared by its gradients.

    Args:
        model, x, y, sample_weight: see `compare`.
        loop: see `diagnose`, whose forms it may have.
        tolerance: of the gradients; by default what `compare` and `diagnose` measure.

    Returns:
        The table of the gradients.

    Raises:
        ParityError: with the diagnosis, if the loop differs.

    >>> import numpy as np
    >>> model = keras.Sequential([keras.layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> assert_same(model, np.ones((4, 2)), np.ones((4, 1))).matches
    True
    """
    if loop is None:
        report = compare(model, x, y, sample_weight, tolerance=tolerance)
        if not report.matches:
            raise ParityError(str(report))
        return report
    diagnosis = diagnose(model, x, y, sample_weight, loop=loop)
    table = diagnosis.gradients
    if not diagnosis.matches or table is None:
        raise ParityError(str(diagnosis))
    if tolerance is not None:
        table = dataclasses.replace(table, tolerance=tolerance)
        if not table.matches:
            raise ParityError(str(table))
    return table


class ParityCheck(keras.callbacks.Callback):
    """Looks every now and then, during a training, whether the loop still does what `fit` does.

    Callbacks do not see the batch, so it is given one. The comparison runs on a clone with the
    weights, slots, seeds and statistics of that moment; the training is not disturbed. A difference
    is a warning, with the diagnosis.

    Args:
        x, y, sample_weight: a batch, each `(batch, ...)` or a nest of such.
        every: steps between two looks. A look costs some seconds, of tracing mostly.
        loop: the step to look at, as `diagnose` takes it; tfbig's own by default.

    Attributes:
        results: a `(step, verdict)` for each look.

    Raises:
        ValueError: at the start of training, if the model cannot be cloned.

    >>> import numpy as np
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> check = ParityCheck(np.ones((4, 2)), np.ones((4, 1)), every=2)
    >>> history = model.fit(np.ones((16, 2)), np.ones((16, 1)), 4, verbose=0, callbacks=[check])
    >>> [step for step, _ in check.results]
    [2, 4]
    """

    def __init__(
        self,
        x: Any,
        y: Any = None,
        sample_weight: Any = None,
        every: int = 1000,
        loop: UserLoop | None = None,
    ) -> None:
        super().__init__()
        if every < 1:
            raise ValueError(f"every is {every}: at least 1 step lies between two looks.")
        self.batch = x, y, sample_weight
        self.every = every
        self.loop = loop
        self.results: list[tuple[int, str]] = []
        self._steps = 0
        self._clone: keras.Model | None = None

    def on_train_begin(self, logs: Any = None) -> None:
        self._steps, self._clone = 0, clone(self.model, *self.batch)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        before, self._steps = self._steps, self._steps + self.model.steps_per_execution
        if before // self.every < self._steps // self.every:
            self._look()

    def _look(self) -> None:
        assert self._clone is not None
        with states.random_state():
            states.put(self._clone, states.take(self.model))
            if self.loop is None:
                report: Any = compare(self._clone, *self.batch)
            else:
                report = diagnose(self._clone, *self.batch, loop=self.loop)
        self.results.append((self._steps, report.verdict))
        if not report.matches:
            warnings.warn(f"In step {self._steps}: {report}", stacklevel=2)


def clone(model: keras.Model, x: Any, y: Any = None, sample_weight: Any = None) -> keras.Model:
    """A compiled copy of a model, built, in the model's own state; the model is left as it is.

    Raises:
        ValueError: if the model does not say how it is made (`get_config`), or how it is compiled.
    """
    states.build(model, x, y, sample_weight)
    try:
        with states.random_state():
            copy = anatomy.copy_compiled(model)
            states.build(copy, x, y, sample_weight)
        states.put(copy, states.take(model))
    except Exception as error:
        raise ValueError(
            f"{type(model).__name__} cannot be cloned: {error}. A subclassed model needs "
            f"get_config(), with all arguments of its constructor, and a loss and metrics that "
            f"Keras can serialize (@keras.saving.register_keras_serializable())."
        ) from error
    return copy
