"""The hand-written training loop: `model.fit` without `model.fit`.

    Loop(model).fit(x, y, epochs=10)

Any compiled Keras model goes in; what comes out is `fit`'s: the same weights, the same `History`,
the same callbacks at the same moments. The step is a page, `training/step.py`; this repeats it.
What Keras gets wrong in `fit` (`tfbig.compat`) the loop does not repeat.

One difference can be seen: where no callback looks at single batches, many steps run in one
compiled call, and the progress bar hears of them at most ten times a second.
"""

import functools
import operator
import time
import warnings
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfbig.training import batches, surgery
from tfbig.training.step import test_step, train_step

# Between two looks at the clock and at the keyboard; ten a second is as fast as anyone reads.
SECONDS_PER_CALL = 0.1

_TRAIN_HOOKS = ("on_batch_begin", "on_batch_end", "on_train_batch_begin", "on_train_batch_end")
_TEST_HOOKS = ("on_test_batch_begin", "on_test_batch_end")


class Loop:
    """A loop of `tf.GradientTape` steps around a compiled Keras model.

    Args:
        model: any compiled `keras.Model`. One with a `train_step` of its own has that step called
            on each batch; its gradients then have no independent witness.

    Raises:
        TypeError: if `model` is not a Keras model.
        ValueError: if it trains under a `tf.distribute` strategy.

    >>> import keras, numpy as np
    >>> model = keras.Sequential([keras.layers.Dense(1)])
    >>> model.compile("adam", loss="mse")
    >>> history = Loop(model).fit(np.ones((8, 3)), np.ones((8, 1)), epochs=2, verbose=0)
    >>> len(history.history["loss"])
    2
    """

    def __init__(self, model: keras.Model) -> None:
        if not isinstance(model, keras.Model):
            raise TypeError(f"Loop trains a keras.Model, and was given {type(model).__name__}.")
        if not isinstance(model.distribute_strategy, _ONE_DEVICE):
            raise ValueError(
                f"Loop trains on one device, and the model was built under "
                f"{type(model.distribute_strategy).__name__}. Use model.fit for it."
            )
        self.model = model
        self._steps: dict[str, batches.CompiledSteps] = {}
        self._traced_for: tuple | None = None
        self._steps_per_call = 1

    def fit(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: str | int = "auto",
        callbacks: Any = None,
        validation_split: float = 0.0,
        validation_data: Any = None,
        shuffle: bool = True,
        class_weight: dict[int, float] | None = None,
        sample_weight: Any = None,
        initial_epoch: int = 0,
        steps_per_epoch: int | None = None,
        validation_steps: int | None = None,
        validation_batch_size: int | None = None,
        validation_freq: int | list[int] = 1,
    ) -> keras.callbacks.History:
        """Trains the model. The arguments and the result are those of `keras.Model.fit`.

        Ctrl-C ends the epoch: the callbacks get its averages so far, `model.history` has them, the
        weights stay as they are; then `KeyboardInterrupt` goes on, with a note that says so.

        Raises:
            ValueError: if the model is not compiled, or for data that Keras does not take.
        """
        model = self.model
        self._check_compiled("fit")
        _warn_of_nan(x, "x")
        _warn_of_nan(y, "y")
        if validation_split and validation_data is None:
            (x, y, sample_weight), validation_data = surgery.validation_split(
                (x, y, sample_weight), validation_split
            )
        train = batches.batches(
            model,
            self._compiled("train"),
            x=x,
            y=y,
            sample_weight=sample_weight,
            batch_size=batch_size,
            steps_per_epoch=steps_per_epoch,
            shuffle=shuffle,
            class_weight=class_weight,
        )
        train.reset()
        validation = None
        fused = _looks_at_no_batch(callbacks, _TRAIN_HOOKS)
        if not isinstance(callbacks, keras.callbacks.CallbackList):
            callbacks = keras.callbacks.CallbackList(
                callbacks,
                add_history=True,
                add_progbar=verbose != 0,
                verbose=verbose,
                epochs=epochs,
                steps=train.num_batches,
                model=model,
            )
        model.stop_training = False
        callbacks.on_train_begin()
        logs: dict = {}
        epoch_logs = None
        for epoch in range(surgery.initial_epoch(model, initial_epoch), epochs):
            model.reset_metrics()
            callbacks.on_epoch_begin(epoch)
            try:
                logs = self._run_steps(
                    train,
                    fused,
                    callbacks.on_train_batch_begin,
                    callbacks.on_train_batch_end,
                    lambda: model.stop_training,
                )
            except KeyboardInterrupt as interrupt:
                model.stop_training = True
                callbacks.on_epoch_end(epoch, model.get_metrics_result())
                callbacks.on_train_end()
                interrupt.add_note(
                    f"Interrupted in epoch {epoch + 1} of {epochs}: the weights are those of the "
                    f"last step, the history so far is in model.history. To go on: "
                    f"fit(..., initial_epoch={epoch})."
                )
                raise
            epoch_logs = surgery.epoch_logs(model, logs)
            if validation_data is not None and surgery.should_evaluate(
                model, epoch, validation_freq
            ):
                if validation is None:
                    validation = self._validation(
                        validation_data, validation_batch_size or batch_size, validation_steps
                    )
                results = self._evaluate(validation, callbacks)
                epoch_logs.update({f"val_{name}": value for name, value in results.items()})
            callbacks.on_epoch_end(epoch, epoch_logs)
            if model.stop_training:
                break
        if model.optimizer is not None and epochs > 0:
            model.optimizer.finalize_variable_values(model.trainable_weights)
        callbacks.on_train_end(logs=epoch_logs)
        return model.history

    def evaluate(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        verbose: str | int = "auto",
        sample_weight: Any = None,
        steps: int | None = None,
        callbacks: Any = None,
        return_dict: bool = False,
    ) -> Any:
        """The loss and the metrics of the model on data, as `keras.Model.evaluate` returns them."""
        self._check_compiled("evaluate")
        data = self._validation((x, y, sample_weight), batch_size, steps)
        if not isinstance(callbacks, keras.callbacks.CallbackList):
            callbacks = keras.callbacks.CallbackList(
                callbacks,
                add_progbar=verbose != 0,
                verbose=verbose,
                epochs=1,
                steps=data.num_batches,
                model=self.model,
            )
        results = self._evaluate(data, callbacks)
        return results if return_dict else surgery.metrics_in_order(self.model, results)

    def _run_steps(
        self,
        data: batches.Batches,
        fused: bool,
        on_begin: Callable[[int], None],
        on_end: Callable[[int, dict], None],
        stopped: Callable[[], bool],
    ) -> dict:
        """All steps of one epoch, or of one evaluation; returns the logs of the last."""
        step, logs = 0, {}
        for run in data.epoch():
            count = self._steps_per_call if fused else self.model.steps_per_execution
            on_begin(step)
            begin = time.perf_counter()
            done, new_logs = run(count)
            if done == 0:
                break
            if fused:
                self._steps_per_call = _adapted(count, time.perf_counter() - begin)
            logs, step = new_logs, step + (done if fused else count)
            on_end(step - 1, logs)
            if stopped():
                break
        return logs

    def _validation(self, data: Any, batch_size: int | None, steps: int | None) -> batches.Batches:
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        return batches.batches(
            self.model,
            self._compiled("test"),
            x=x,
            y=y,
            sample_weight=sample_weight,
            batch_size=batch_size,
            steps_per_epoch=steps,
            shuffle=False,
            class_weight=None,
        )

    def _evaluate(self, data: batches.Batches, callbacks: Any) -> dict[str, float]:
        model = self.model
        model.stop_evaluating = False
        data.reset()
        callbacks.on_test_begin()
        model.reset_metrics()
        logs = self._run_steps(
            data,
            _looks_at_no_batch(callbacks, _TEST_HOOKS),
            callbacks.on_test_batch_begin,
            callbacks.on_test_batch_end,
            lambda: model.stop_evaluating,
        )
        results = {k: float(v) for k, v in surgery.epoch_logs(model, logs).items()}
        callbacks.on_test_end(results)
        return results

    def _compiled(self, kind: str) -> batches.CompiledSteps:
        """The steps of training or of evaluation, traced once for each `compile()`."""
        model, now = self.model, surgery.compiled_state(self.model)
        if self._traced_for is None or any(map(operator.is_not, now, self._traced_for)):
            self._steps, self._traced_for = {}, now
        if kind not in self._steps:
            step: batches.Step
            if kind == "train":
                own = surgery.overrides_train_step(model)
                step = model.train_step if own else functools.partial(train_step, model)
            else:
                own = surgery.overrides_test_step(model)
                step = model.test_step if own else functools.partial(test_step, model)
            self._steps[kind] = batches.CompiledSteps(step, model.run_eagerly, model.jit_compile)
        return self._steps[kind]

    def _check_compiled(self, method: str) -> None:
        if not self.model.compiled:
            raise ValueError(
                f"The model is not compiled. Call model.compile(optimizer, loss) before "
                f"Loop(model).{method}."
            )


_ONE_DEVICE = type(tf.distribute.get_strategy())


def _looks_at_no_batch(callbacks: Any, hooks: tuple[str, ...]) -> bool:
    """Whether no callback wants to hear of single batches, so that steps may be fused."""
    if isinstance(callbacks, keras.callbacks.CallbackList):
        callbacks = callbacks.callbacks
    return not any(_looks_at_batches(c, hooks) for c in keras.tree.flatten(callbacks or []))


def _looks_at_batches(callback: keras.callbacks.Callback, hooks: tuple[str, ...]) -> bool:
    if isinstance(callback, (keras.callbacks.ModelCheckpoint, keras.callbacks.BackupAndRestore)):
        return callback.save_freq != "epoch"
    if type(callback) is keras.callbacks.ProgbarLogger:
        return False
    # A LambdaCallback carries its hooks on the instance: plain functions, without __func__.
    return any(
        getattr(getattr(callback, hook), "__func__", None)
        is not getattr(keras.callbacks.Callback, hook)
        for hook in hooks
    )


def _adapted(count: int, seconds: float) -> int:
    """How many steps to run in the next call, so that a call takes about `SECONDS_PER_CALL`."""
    if seconds < SECONDS_PER_CALL / 2:
        return count * 4
    if seconds > SECONDS_PER_CALL * 2:
        return max(1, count // 2)
    return count


def _warn_of_nan(data: Any, name: str) -> None:
    for array in keras.tree.flatten(data):
        if not isinstance(array, np.ndarray) or array.dtype.kind != "f" or not array.ndim:
            continue
        # One pass without a copy: a sum is NaN if any term is.
        with np.errstate(all="ignore"):
            clean = not np.isnan(array.sum())
        if clean:
            continue
        rows = np.flatnonzero(np.isnan(array.reshape(len(array), -1)).any(axis=1))
        if len(rows):
            warnings.warn(
                f"{name} holds NaN in {len(rows)} of {len(array)} rows (the first is row "
                f"{rows[0]}): the loss will be NaN and the weights will be lost. Remove or fill "
                f"these rows before training.",
                stacklevel=3,
            )
