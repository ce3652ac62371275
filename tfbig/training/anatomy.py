"""What a diagnosis must see of Keras's inside: the other file of the room that touches privates.

Where `surgery.py` has what the loop needs of Keras's trainer, this has what `tfbig.parity` needs of
its losses, layers and optimizers. When Keras changes its inside, these two change.
"""

import contextlib
import functools
import inspect
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras.src.backend.common import masking
from keras.src.losses.losses import LossFunctionWrapper, sparse_categorical_crossentropy
from keras.src.trainers.data_adapters import data_adapter_utils

from tfbig.training.surgery import flatten_layers, forget_compiled_functions, overrides_train_step


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


def reduced_like(loss: LossFunctionWrapper, function: Any) -> LossFunctionWrapper:
    """A function of `(y, y_pred)` with the masks, the weights and the mean of a loss."""
    return LossFunctionWrapper(function, reduction=loss.reduction)


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


def trained_by(optimizer: keras.optimizers.Optimizer) -> list[keras.Variable]:
    """The variables that an optimizer was built for."""
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        optimizer = optimizer.inner_optimizer
    return list(optimizer._trainable_variables) if optimizer.built else []


def has_loss_of_an_earlier_compile(model: keras.Model) -> bool:
    """Whether the last `compile` had no loss, and the one before is still in use (V14)."""
    config = model._compile_config
    return config is not None and config.config.get("loss") is None and bool(model._compile_loss)


def has_several_losses_on_one_output(model: keras.Model) -> bool:
    """Whether one output was given a list of losses, of which `fit` uses the first."""
    compiled = model._compile_loss
    if compiled is None or not compiled.built:
        return False
    paths = [part.path for part in compiled._flat_losses]
    return len(set(paths)) < len(paths) or (
        len(paths) > 1
        and isinstance(model.loss, list)
        and not keras.tree.is_nested(compiled._y_pred_build_structure)
    )


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


def is_recurrent(model: keras.Model) -> bool:
    """Whether a layer is recurrent."""
    return any(isinstance(layer, keras.layers.RNN) for layer in flatten_layers(model))
