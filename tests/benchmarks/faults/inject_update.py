"""Causes in what is added to the loss, in the gradients, the update and the epochs."""

import dataclasses
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from faults.inject import FAULTS, fault, no_batch_norm, only, variant
from faults.loop import Loop, Result, micro_passes
from faults.networks import MICRO, RATE, slope

__all__ = ["FAULTS"]

# --- what is added to the loss


@fault("D03", depends=lambda s: {"regularizer": s.regularizer or "l2", "add_loss": False})
def _no_regularisation(loop: Loop) -> Loop:
    return loop.changed(penalty=lambda loop, model, x: 0.0)


@fault("D04", depends=lambda s: {"regularizer": s.regularizer or "l2", "add_loss": False})
def _regularisation_twice(loop: Loop) -> Loop:
    return loop.changed(penalty=lambda loop, model, x: 2 * tf.reduce_sum(model.losses))


@fault("D05", add_loss=True)
def _no_add_loss(loop: Loop) -> Loop:
    def regularisation(loop: Loop, model: keras.Model, x: Any) -> Any:
        return sum(v.regularizer(v) for v in model.trainable_variables if v.regularizer)

    return loop.changed(penalty=regularisation)


@fault("D51", regularizer="l2")
def _logs_without_regularisation(loop: Loop) -> Loop:
    return loop.changed(logs=lambda result: {"loss": result.data})


@fault(
    "D58",
    only(lambda s: s.network in ("dense", "two_heads"), "token ids have no slope; BatchNorm"),
    penalty=True,
    dropout=False,
)
def _no_second_order(loop: Loop) -> Loop:
    def constant(inner: Loop, model: keras.Model, x: Any) -> Any:
        added = loop.changed(setup=dataclasses.replace(loop.setup, penalty=False))
        losses = loop.penalty(added, model, x)
        return losses + tf.stop_gradient(slope(model, x))

    return loop.changed(penalty=constant)


# --- gradients


@fault("D13", no_batch_norm, dropout=False, optimizer="sgd")
def _accumulated_sum(loop: Loop) -> Loop:
    def compute(loop: Loop, model: keras.Model, x: Any, y: Any, w: Any) -> Result:
        return micro_passes(loop, model, x, y, w, (7,) * MICRO, (1.0,) * MICRO)

    return loop.changed(compute=compute)


@fault("D14", no_batch_norm, dropout=False, optimizer="sgd")
def _mean_of_means(loop: Loop) -> Loop:
    def compute(loop: Loop, model: keras.Model, x: Any, y: Any, w: Any) -> Result:
        return micro_passes(loop, model, x, y, w, (11, 8, 2), (1 / MICRO,) * MICRO)

    return loop.changed(compute=compute)


@fault(
    "D60",
    no_batch_norm,
    dropout=False,
    optimizer="sgd",
    loss_scale=0.0,
    options=(("use_ema", True), ("ema_momentum", 0.7)),
)
def _average_each_micro_step(loop: Loop) -> Loop:
    def compute(loop: Loop, model: keras.Model, x: Any, y: Any, w: Any) -> Result:
        if not loop.optimizer.built:
            loop.optimizer.build(model.trainable_variables)

        def average() -> None:
            loop.optimizer._update_model_variables_moving_average(model.trainable_variables)

        return micro_passes(loop, model, x, y, w, (7,) * MICRO, (1 / MICRO,) * MICRO, average)

    return loop.changed(compute=compute)


@fault("D38")
def _left_out(loop: Loop) -> Loop:
    """The body is trained, the head that a list holds is not; or the other way round."""
    first = bool(variant(loop.setup, 2))

    def some(model: keras.Model) -> list:
        found = model.trainable_variables
        return found[2:] if first else found[:-2]

    return loop.changed(variables=some)


@fault(
    "D40",
    only(lambda s: not s.batch_norm, "a frozen BatchNorm stops its statistics: a cause more"),
    frozen=True,
)
def _trains_the_frozen(loop: Loop) -> Loop:
    """The variables are those from before the layer was frozen."""

    def all_of(model: keras.Model) -> list:
        return [v for layer in model.layers for v in layer.weights if "seed" not in v.path]

    return loop.changed(variables=all_of)


@fault("D41")
def _other_order(loop: Loop) -> Loop:
    def apply(inner: Loop, grads: list, variables: list) -> None:
        order = sorted(range(len(grads)), key=lambda i: (tuple(variables[i].shape), -i))
        target = sorted(range(len(grads)), key=lambda i: (tuple(variables[i].shape), i))
        mixed = [grads[i] for i in order]
        loop.apply(inner, mixed, [variables[i] for i in target])

    return loop.changed(apply=apply)


@fault(
    "D59",
    only(lambda s: s.tokens, "no embedding"),
    depends=lambda s: {"optimizer": ("adam", "rmsprop")[variant(s, 2)]},
)
def _dense_gradients(loop: Loop) -> Loop:
    """The loop merges the rows of tokens that occur twice; fit does not."""
    return loop.changed(process=lambda grads: [tf.convert_to_tensor(g) for g in grads])


# --- update: by an optimizer of its own, but for what it forgets


def _fault_of_optimizer(id: str, options: dict, **config: Any) -> None:
    @fault(id, optimizer="sgd", options=tuple(options.items()), loss_scale=0.0)
    def own(loop: Loop) -> Loop:
        return loop.changed(optimizer=loop.own_optimizer(**config))


_fault_of_optimizer("D29", {"clipnorm": 0.02}, clipnorm=None)
_fault_of_optimizer("D30", {"global_clipnorm": 0.05}, global_clipnorm=None)
_fault_of_optimizer("D31", {"clipvalue": 0.01}, clipvalue=None)
_fault_of_optimizer("D33", {"weight_decay": 0.2}, weight_decay=None)


@fault("D34", constraint=True, optimizer="sgd", options=(), loss_scale=0.0, schedule=False)
def _no_constraint(loop: Loop) -> Loop:
    def descend(loop: Loop, grads: list, variables: list) -> None:
        for g, v in zip(grads, variables, strict=True):
            v.assign_sub(RATE * tf.convert_to_tensor(g))

    return loop.changed(apply=descend)


@fault("D35", depends=lambda s: {"schedule": variant(s, 3) == 1, "loss_scale": 0.0})
def _other_rate(loop: Loop) -> Loop:
    which = variant(loop.setup, 3)
    if which == 0:
        return loop.changed(optimizer=loop.own_optimizer(learning_rate=RATE * 0.3))
    if which == 1:  # forgets the schedule
        return loop.changed(optimizer=loop.own_optimizer(learning_rate=RATE))

    def twice(inner: Loop, grads: list, variables: list) -> None:
        loop.apply(inner, grads, variables)
        loop.apply(inner, grads, variables)

    return loop.changed(apply=twice)


@fault("D36", depends=lambda s: {"optimizer": ("adam", "momentum")[variant(s, 2)]})
def _made_anew(loop: Loop) -> Loop:
    def apply(inner: Loop, grads: list, variables: list) -> None:
        loop.apply(inner.changed(optimizer=loop.own_optimizer()), grads, variables)

    return loop.changed(apply=apply)


@fault("D37", depends=lambda s: {"optimizer": ("adam", "rmsprop")[variant(s, 2)]})
def _other_defaults(loop: Loop) -> Loop:
    if loop.setup.optimizer == "adam":
        return loop.changed(optimizer=loop.own_optimizer(beta_2=0.9, epsilon=1e-3))
    return loop.changed(optimizer=loop.own_optimizer(rho=0.99, epsilon=1e-8))


@fault("D25", loss_scale=2.0**15, optimizer="sgd")
def _not_scaled(loop: Loop) -> Loop:
    return loop.changed(scale=lambda loop, loss: loss)


@fault("D26", loss_scale=2.0**15, optimizer="sgd")
def _not_unscaled(loop: Loop) -> Loop:
    def apply(loop: Loop, grads: list, variables: list) -> None:
        loop.optimizer.inner_optimizer.apply_gradients(zip(grads, variables, strict=True))

    return loop.changed(apply=apply)


@fault("D27", loss_scale=2.0**30, optimizer="sgd", policy="mixed_float16")
def _infinite_steps_taken(loop: Loop) -> Loop:
    def apply(loop: Loop, grads: list, variables: list) -> None:
        pairs = [
            (tf.convert_to_tensor(g) / 2.0**30, v) for g, v in zip(grads, variables, strict=True)
        ]
        loop.optimizer.inner_optimizer.apply_gradients(pairs)

    return loop.changed(apply=apply)


# --- over epochs


@fault(
    "D36/epoch", mode="train", depends=lambda s: {"optimizer": ("adam", "momentum")[variant(s, 2)]}
)
def _made_anew_each_epoch(loop: Loop) -> Loop:
    current = [loop.own_optimizer()]

    def apply(inner: Loop, grads: list, variables: list) -> None:
        loop.apply(inner.changed(optimizer=current[0]), grads, variables)

    def forget(loop: Loop, model: keras.Model) -> None:
        current[0] = loop.own_optimizer()

    return loop.changed(apply=apply, epoch_end=forget)


@fault("D44", mode="train", structural=True, shuffle=True)
def _not_shuffled(loop: Loop) -> Loop:
    return loop.changed(order=lambda loop, rows, epoch: np.arange(rows))


@fault("D46", mode="train", structural=True, shuffle=True, unseeded=True)
def _same_order(loop: Loop) -> Loop:
    def order(loop: Loop, rows: int, epoch: int) -> np.ndarray:
        return np.random.default_rng(5).permutation(rows)

    return loop.changed(order=order)


@fault("D45", mode="train")
def _last_batch_dropped(loop: Loop) -> Loop:
    return loop.changed(batches=lambda indices: loop.batches(indices)[:-1])


@fault("D48", mode="train", dropout=False)
def _evaluated_after(loop: Loop) -> Loop:
    def evaluate(loop: Loop, losses: list, sizes: list, x: Any, y: Any) -> float:
        return loop.model.evaluate(x, y, verbose=0, return_dict=True)["loss"]

    return loop.changed(epoch_loss=evaluate)


@fault("D49", mode="train")
def _last_loss(loop: Loop) -> Loop:
    return loop.changed(epoch_loss=lambda loop, losses, sizes, x, y: losses[-1])


@fault("D50", mode="train")
def _plain_mean(loop: Loop) -> Loop:
    return loop.changed(epoch_loss=lambda loop, losses, sizes, x, y: float(np.mean(losses)))


@fault("D66", mode="train", optimizer="sgd", options=(("weight_decay", 0.2),), loss_scale=0.0)
def _phantom_step(loop: Loop) -> Loop:
    def one_more(bound: Loop, model: keras.Model) -> None:
        found = bound.variables(model)
        bound.apply(bound, [tf.zeros(v.shape) for v in found], found)

    return loop.changed(epoch_end=one_more)
