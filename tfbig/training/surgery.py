"""What the loop must take from Keras's inside: the only file of the room that touches privates.

Each function is a line or two of Keras's own trainer, named. When Keras changes its inside, this
file changes and nothing else.
"""

from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras.src.backend.common import global_state
from keras.src.backend.tensorflow.trainer import TFEpochIterator
from keras.src.random.seed_generator import GLOBAL_SEED_GENERATOR
from keras.src.trainers.data_adapters import array_slicing, get_data_adapter
from keras.src.trainers.data_adapters.array_data_adapter import ArrayDataAdapter

from tfbig import compat
from tfbig.compat import v27_same_order

# Above this many bytes arrays are read batch by batch, by Keras's pipeline: the fused epoch keeps
# a second copy of them.
IN_MEMORY_BYTES = 2**30


def forward(model: keras.Model, x: Any, training: bool) -> Any:
    """The model's prediction; a `call` without a `training` argument is called without it."""
    if model._call_has_training_arg:
        return model(x, training=training)
    return model(x)


def compute_loss(
    model: keras.Model, x: Any, y: Any, y_pred: Any, sample_weight: Any, training: bool
) -> tf.Tensor:
    """The model's `compute_loss`, also one that was written before it had `training`."""
    return model._compute_loss(x, y, y_pred, sample_weight, training=training)


def track_loss(model: keras.Model, loss: tf.Tensor, x: Any) -> None:
    """Adds the loss of a batch to the epoch's average, weighted by the number of examples."""
    leaf = next(leaf for leaf in keras.tree.flatten(x) if leaf is not None)
    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    model._loss_tracker.update_state(loss * replicas, sample_weight=tf.shape(leaf)[0])


def build_optimizer(model: keras.Model) -> None:
    """Creates the optimizer's slots before it scales its first loss.

    A `LossScaleOptimizer` that is not built scales by the number it was constructed with.
    """
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)


def overrides_train_step(model: keras.Model) -> bool:
    """Whether the step of the model is not Keras's own."""
    return type(model).train_step is not keras.Model.train_step


def overrides_test_step(model: keras.Model) -> bool:
    """Whether the evaluation step of the model is not Keras's own."""
    return type(model).test_step is not keras.Model.test_step


def compiled_state(model: keras.Model) -> tuple[Any, ...]:
    """What a traced step has baked in: another `compile()` or optimizer gives another value."""
    return (model._compile_config, model.optimizer, model.run_eagerly, model.jit_compile)


def epoch_logs(model: keras.Model, logs: dict) -> dict:
    """The epoch's averages, or what a step of the user's own returned last."""
    return dict(model._get_metrics_result_or_logs(logs))


def initial_epoch(model: keras.Model, given: int) -> int:
    """Where training begins: `BackupAndRestore` may have read it from its file."""
    return model._initial_epoch or given


def should_evaluate(model: keras.Model, epoch: int, validation_freq: int | list[int]) -> bool:
    """Whether the epoch, counted from 0, ends with an evaluation."""
    return model._should_eval(epoch, validation_freq)


def metrics_in_order(model: keras.Model, logs: dict) -> Any:
    """The values of the logs as `evaluate` returns them without `return_dict`."""
    return model._flatten_metrics_in_order(logs)


def flatten_layers(model: keras.Layer) -> list[keras.Layer]:
    """All layers inside a model, at any depth, each once, without the model itself."""
    return list(model._flatten_layers(include_self=False))


def validation_split(arrays: tuple, fraction: float) -> tuple:
    """Splits `(x, y, sample_weight)` into the first part and the last `fraction`."""
    return array_slicing.train_validation_split(arrays, validation_split=fraction)


def forget_compiled_functions(model: keras.Model) -> Callable[[], None]:
    """Makes `fit`, `evaluate` and `predict` trace anew; returns what puts the old traces back."""
    before = (model.train_function, model.test_function, model.predict_function)

    def restore() -> None:
        model.train_function, model.test_function, model.predict_function = before

    model.train_function = model.test_function = model.predict_function = None
    return restore


def without_optionals(batch: Any) -> Any:
    """A batch in which TensorFlow's empty optionals, which stand for `None`, are `None` again."""
    optional = (tf.experimental.Optional, tf.OptionalSpec)
    return keras.tree.map_structure(
        lambda leaf: None if isinstance(leaf, optional) else leaf, batch
    )


class _Epochs(TFEpochIterator):
    """Keras's iterator over epochs, with the dataset itself also where V26 is mended."""

    def _get_iterator(self) -> tf.data.Dataset:
        return self._distributed_dataset


def epoch_iterator(model: keras.Model, **data: Any) -> TFEpochIterator:
    """Keras's own iterator over the batches of an epoch."""
    return _Epochs(distribute_strategy=model.distribute_strategy, **data)


def steps_of_epoch(iterator: TFEpochIterator) -> Iterator[tf.data.Iterator]:
    """Yields the iterator to fetch from, once for each step of the epoch; without end where the
    length of the data is unknown."""
    for _, _, source in iterator._enumerate_iterator():
        yield source


def finish_exhausted_epoch(iterator: TFEpochIterator) -> None:
    """Ends an epoch whose data ran out before its steps."""
    if iterator.steps_per_epoch:
        iterator._interrupted_warning()
    iterator._current_iterator = None
    iterator.data_adapter.on_epoch_end()


def in_memory(**data: Any) -> ArrayDataAdapter | None:
    """Keras's adapter for arrays that fit in memory twice, else `None`."""
    if data.get("steps_per_epoch") or data.get("shuffle") not in (True, False):
        return None
    if data["x"] is None or not all(
        isinstance(leaf, (np.ndarray, tf.Tensor, type(None)))
        for leaf in keras.tree.flatten((data["x"], data["y"], data["sample_weight"]))
    ):
        return None
    leaves = [a for a in keras.tree.flatten((data["x"], data["y"])) if a is not None]
    if sum(a.dtype.size * tf.size(a).numpy() if tf.is_tensor(a) else a.nbytes for a in leaves) > (
        IN_MEMORY_BYTES
    ):
        return None
    return get_data_adapter(**data)


def examples(adapter: ArrayDataAdapter) -> Any:
    """All the examples of an adapter as one batch, in the dtypes Keras gives to them."""
    return v27_same_order.whole(adapter)


def sizes(adapter: ArrayDataAdapter) -> tuple[int, int]:
    """The number of examples, and of examples in a batch."""
    return adapter._num_samples, adapter.batch_size


def orders(adapter: ArrayDataAdapter) -> Iterator[tf.Tensor]:
    """The order of the examples in each epoch, `(num_samples,)`, as `fit` would visit them.

    Stock Keras repeats the order when a seed was set (V27): it is drawn twice, and when both draws
    are the same there is no need to draw it again.
    """
    num_samples, _ = sizes(adapter)
    if not adapter._shuffle:
        order = tf.range(num_samples, dtype=tf.int64)
        while True:
            yield order
    if compat.active("V27"):
        epochs = v27_same_order.Orders(num_samples)
        while True:
            yield tf.constant(epochs.next())
    rows = ArrayDataAdapter(np.arange(num_samples), batch_size=num_samples, shuffle=True)
    dataset = rows.get_tf_dataset()
    first, second = next(iter(dataset)), None
    yield first
    second = next(iter(dataset))
    yield second
    repeats = bool(tf.reduce_all(first == second))
    while True:
        yield first if repeats else dataset.get_single_element()


def build(model: keras.Model, batch: tuple) -> None:
    """Creates a model's variables from the shapes of a batch `(x, y, sample_weight)`."""
    model._symbolic_build(data_batch=batch)


def global_seed_state() -> list[keras.Variable]:
    """The state of Keras's global seed generator, if there is one yet."""
    generator = global_state.get_global_attribute(GLOBAL_SEED_GENERATOR)
    return [] if generator is None else [generator.state]


def history(model: keras.Model) -> Any:
    """What the model's last training left, or `None`."""
    return vars(model).get("history")


def set_history(model: keras.Model, value: Any) -> None:
    """Puts back what `history` returned."""
    if value is None:
        vars(model).pop("history", None)
    else:
        model.history = value


def forget_deferred_variables() -> None:
    """Drops the variables that Keras noted in a stateless scope and has not made yet.

    It would make them at the end of the scope also after an error, and those that fail at the end
    of every later one.
    """
    global_state.set_global_attribute("uninitialized_variables", [])
