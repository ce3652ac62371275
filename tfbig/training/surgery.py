"""What the loop must take from Keras's inside: the only file of the room that touches privates.

Each function is a line or two of Keras's own trainer, named. When Keras changes its inside, this
file changes and nothing else.
"""

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras.src.backend.common import global_state, masking
from keras.src.backend.tensorflow.trainer import TFEpochIterator
from keras.src.losses.losses import LossFunctionWrapper, sparse_categorical_crossentropy
from keras.src.random.seed_generator import GLOBAL_SEED_GENERATOR
from keras.src.trainers.data_adapters import array_slicing, data_adapter_utils, get_data_adapter
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


def logits(output: tf.Tensor) -> tf.Tensor:
    """What a softmax or a sigmoid was given, where Keras remembers it; else the output itself.

    Keras's cross-entropies compute from these logits, so the gradient goes past the output.
    """
    return getattr(output, "_keras_logits", output)


def without_memory(output: tf.Tensor, logits: bool = False, mask: bool = False) -> tf.Tensor:
    """The same numbers as a new tensor, without the logits or the mask that Keras remembers."""
    copy = tf.identity(output)
    if not logits and "_keras_logits" in vars(output):
        copy._keras_logits = output._keras_logits
    if not mask and masking.get_keras_mask(output) is not None:
        masking.set_keras_mask(copy, masking.get_keras_mask(output))
    return copy


def losses_by_output(
    model: keras.Model, y: Any, y_pred: Any, sample_weight: Any, all_of_them: bool = False
) -> list[tuple]:
    """What `compile(loss=...)` compares with what: `(loss, weight, y, y_pred, sample_weight)` each.

    Empty where the model has no compiled loss, or another structure of targets than of outputs.
    """
    compiled = model._compile_loss
    if compiled is None:
        return []
    if not compiled.built:
        compiled(y, y_pred, sample_weight)
    if not keras.tree.is_nested(y) and not keras.tree.is_nested(y_pred):
        # Keras takes the first of several losses on one output, and drops the rest (V13).
        parts = compiled._flat_losses if all_of_them else compiled._flat_losses[:1]
    else:
        parts = compiled._flat_losses

    def at(path: tuple, nest: Any) -> Any:
        for key in path if keras.tree.is_nested(nest) else ():
            nest = nest[key]
        return nest

    try:
        return [
            (
                part.loss,
                1.0 if part.loss_weights is None else part.loss_weights,
                at(part.path, y),
                at(part.path, y_pred),
                at(part.path, sample_weight)
                if keras.tree.is_nested(sample_weight)
                else sample_weight,
            )
            for part in parts
        ]
    except (KeyError, IndexError, TypeError):
        return []


def stock_train_step(model: keras.Model, batch: Any) -> dict:
    """Keras's own step, also of a model that has one of its own."""
    return keras.Model.train_step(model, batch)


def class_weight_to_sample_weight(y: Any, class_weight: dict[int, float]) -> Any:
    """The sample weights that `fit` makes of class weights."""
    return data_adapter_utils.class_weight_to_sample_weights(y, class_weight)


def with_logits(output: tf.Tensor, logits: tf.Tensor | None) -> tf.Tensor:
    """Has Keras remember the logits of an output."""
    if logits is not None:
        output._keras_logits = logits
    return output


def mask(output: tf.Tensor) -> tf.Tensor | None:
    """The mask that Keras remembers of a tensor."""
    return masking.get_keras_mask(output)


def loss_arguments(loss: Any) -> dict[str, Any] | None:
    """The arguments with which a loss calls its function, defaults included; `None` if unknown."""
    if not isinstance(loss, LossFunctionWrapper):
        return None
    return {**loss_defaults(loss), **loss._fn_kwargs}


def loss_defaults(loss: LossFunctionWrapper) -> dict[str, Any]:
    """The defaults of the function of a loss."""
    parameters = inspect.signature(loss.fn).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty}


def loss_with(loss: LossFunctionWrapper, **changes: Any) -> LossFunctionWrapper:
    """The same loss with other arguments."""
    return LossFunctionWrapper(
        loss.fn, reduction=loss.reduction, name=loss.name, **{**loss._fn_kwargs, **changes}
    )


def is_sparse_crossentropy(loss: Any) -> bool:
    """Whether a loss takes class numbers."""
    return isinstance(loss, LossFunctionWrapper) and loss.fn is sparse_categorical_crossentropy


def count_weight_penalties(model: keras.Model) -> int:
    """How many of the last entries of `model.losses` are of weights' regularizers."""
    return len(model._get_regularization_losses())


def is_seed(variable: keras.Variable) -> bool:
    """Whether a variable is the state of a seed generator."""
    return variable.name == "seed_generator_state"


@contextlib.contextmanager
def with_learning_rate(optimizer: keras.optimizers.Optimizer, rate: Any) -> Iterator[None]:
    """Gives an optimizer another learning rate or schedule for a while."""
    before = optimizer._learning_rate
    optimizer._learning_rate = rate
    try:
        yield
    finally:
        optimizer._learning_rate = before


def learning_rate(optimizer: keras.optimizers.Optimizer) -> Any:
    """The rate of an optimizer: its variable, or its schedule."""
    return optimizer._learning_rate


def is_average(variable: keras.Variable) -> bool:
    """Whether an optimizer's variable is a running average of a weight (EMA)."""
    return "_average" in variable.path


def knows(optimizer: keras.optimizers.Optimizer, variable: Any) -> bool:
    """Whether an optimizer was built for a variable."""
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        optimizer = optimizer.inner_optimizer
    return optimizer._var_key(variable) in optimizer._trainable_variables_indices


def has_several_losses_on_one_output(model: keras.Model) -> bool:
    """Whether one output was given a list of losses, of which `fit` uses the first."""
    compiled = model._compile_loss
    return compiled is not None and compiled.built and len(compiled._flat_losses) > 1


@contextlib.contextmanager
def stock_steps(model: keras.Model) -> Iterator[None]:
    """Has `fit` call Keras's own step, also of a model that has one of its own."""
    if not overrides_train_step(model):
        yield
        return
    restore = forget_compiled_functions(model)
    # On the instance, past Keras's own bookkeeping of attributes.
    object.__setattr__(model, "train_step", functools.partial(stock_train_step, model))
    try:
        yield
    finally:
        object.__delattr__(model, "train_step")
        restore()


def value(variable: keras.Variable) -> np.ndarray:
    """A variable's own value, also while a layer that computes in half precision is called."""
    return variable._value.numpy()


def copy_compiled(model: keras.Model) -> keras.Model:
    """A new model of the same configuration, compiled in the same way, with weights of its own."""
    copy = type(model).from_config(model.get_config())
    copy.compile_from_config(model.get_compile_config())
    # What compile was given as it is, where it cannot be serialized.
    copy.run_eagerly, copy.jit_compile = model.run_eagerly, model.jit_compile
    return copy
