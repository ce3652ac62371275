"""Correct loops in the ways in which users write them: none may raise an alarm."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from faults import loop as parts
from faults.loop import Loop, make_step, make_train
from faults.networks import LOSSES, NETWORKS, Setup, draw

Step = Callable[..., Any]


@dataclasses.dataclass(frozen=True)
class Style:
    """One way to write a correct loop, and what it needs of the setup."""

    name: str
    make: Callable[[Setup, keras.Model], Step]
    needs: dict[str, Any]
    applies: Callable[[Setup], bool]
    mode: str = "step"


STYLES: list[Style] = []


def style(
    name: str, applies: Callable[[Setup], bool] = lambda s: True, mode: str = "step", **needs: Any
) -> Callable:
    def register(make: Callable[[Setup, keras.Model], Step]) -> Callable:
        STYLES.append(Style(name, make, needs, applies, mode))
        return make

    return register


def by_hand(setup: Setup, model: keras.Model) -> Step:
    return make_step(parts.correct(setup, model))


def with_compute_loss(setup: Setup, model: keras.Model) -> Step:
    def step(model: keras.Model, x: Any, y: Any, sample_weight: Any = None) -> dict:
        with tf.GradientTape() as tape:
            y_pred = model(x, training=True)
            loss = model.compute_loss(x, y, y_pred, sample_weight, training=True)
            scaled = model.optimizer.scale_loss(loss)
        grads = tape.gradient(scaled, model.trainable_variables)
        model.optimizer.apply_gradients(zip(grads, model.trainable_variables, strict=True))
        return {"loss": loss}

    return step


style("compute_loss")(with_compute_loss)
style("by_hand")(by_hand)
style("by_hand, dropout", dropout=True)(by_hand)
style("by_hand, sample weights", weights="sample")(by_hand)
style("by_hand, regularised, add_loss", regularizer="l2", add_loss=True)(by_hand)
style("by_hand, clipped", optimizer="adam", options=(("global_clipnorm", 0.05),))(by_hand)
style("by_hand, decay, schedule", options=(("weight_decay", 0.1),), schedule=True)(by_hand)
style("by_hand, average", options=(("use_ema", True), ("ema_momentum", 0.7)))(by_hand)
style("by_hand, constraint", constraint=True)(by_hand)
style("fit by XLA", lambda s: not s.tokens, jit_compile=True, dropout=False)(by_hand)
style("bfloat16", policy="mixed_bfloat16")(with_compute_loss)
style("float16, scaled", policy="mixed_float16", loss_scale=2.0**15)(with_compute_loss)
style("gradient penalty", lambda s: s.network in ("dense", "two_heads"), penalty=True)(by_hand)
style("smoothed", lambda s: "bce" in s.loss, smoothing=0.2)(with_compute_loss)
style("frozen layer", lambda s: not s.batch_norm, frozen=True)(by_hand)
style("targets (n,)", lambda s: not s.per_token and "mse" in s.loss, flat_y=True)(by_hand)
style("fit by a train_step of the user's", custom_step=True)(by_hand)
style(
    "class weights",
    lambda s: len(s.heads) == 1 and not s.per_token and s.loss != "mse",
    weights="class",
)(with_compute_loss)


@style("loss objects")
def _loss_objects(setup: Setup, model: keras.Model) -> Step:
    def data_loss(loop: Loop, x: Any, y: Any, y_pred: Any, w: Any) -> Any:
        total = 0.0
        for head in setup.heads:
            target, output, weight = (
                v[head.name] if isinstance(v, dict) else v for v in (y, y_pred, w)
            )
            loss = head.loss()
            loss = keras.losses.MeanSquaredError() if isinstance(loss, str) else loss
            total += head.weight * loss(target, output, sample_weight=weight)
        return total

    return make_step(parts.correct(setup, model).changed(data_loss=data_loss))


@style("tf.function")
def _function(setup: Setup, model: keras.Model) -> Step:
    model.optimizer.build(model.trainable_variables)
    return tf.function(by_hand(setup, model))


@style("tf.function, dropout", dropout=True)
def _function_dropout(setup: Setup, model: keras.Model) -> Step:
    return tf.function(with_compute_loss(setup, model))


@style("XLA", lambda s: not s.tokens, dropout=False)
def _xla(setup: Setup, model: keras.Model) -> Step:
    return tf.function(by_hand(setup, model), jit_compile=True)


# XLA draws other numbers from a seed than TensorFlow, so both use it.
@style("XLA, dropout", lambda s: not s.tokens, dropout=True, jit_compile=True)
def _xla_dropout(setup: Setup, model: keras.Model) -> Step:
    return tf.function(with_compute_loss(setup, model), jit_compile=True)


@style("own optimizer", optimizer="sgd")
def _own_sgd(setup: Setup, model: keras.Model) -> Step:
    loop = parts.correct(setup, model)
    return make_step(loop.changed(optimizer=loop.own_optimizer()))


@style("own optimizer with slots", optimizer="adam")
def _own_adam(setup: Setup, model: keras.Model) -> Step:
    loop = parts.correct(setup, model)
    return make_step(loop.changed(optimizer=loop.own_optimizer()))


@style("accumulated", lambda s: not s.batch_norm, dropout=False, optimizer="momentum")
def _accumulated(setup: Setup, model: keras.Model) -> Step:
    return make_step(parts.correct(setup, model).changed(compute=parts.micro_mean))


@style("train_step")
def _train_step(setup: Setup, model: keras.Model) -> Step:
    return lambda model, x, y, w=None: model.train_step((x, y, w))


@style("no logs")
def _no_logs(setup: Setup, model: keras.Model) -> Step:
    step = by_hand(setup, model)

    def silent(model: keras.Model, x: Any, y: Any, sample_weight: Any = None) -> None:
        step(model, x, y, sample_weight)

    return silent


@style("metrics after the update", dropout=True)
def _metrics(setup: Setup, model: keras.Model) -> Step:
    metric = keras.metrics.Mean()

    def after(loop: Loop, model: keras.Model, x: Any) -> None:
        for output in keras.tree.flatten(model(x, training=False)):
            metric.update_state(output)

    return make_step(parts.correct(setup, model).changed(after=after))


@style("apply, persistent tape")
def _persistent(setup: Setup, model: keras.Model) -> Step:
    def step(model: keras.Model, x: Any, y: Any, sample_weight: Any = None) -> dict:
        weights = [v.value for v in model.trainable_variables]
        with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
            tape.watch(weights)
            y_pred = model(x, training=True)
            loss = model.compute_loss(x=x, y=y, y_pred=y_pred, sample_weight=sample_weight)
        grads = tape.gradient(loss, weights)
        model.optimizer.apply(grads, model.trainable_variables)
        return {"loss": float(loss)}

    return step


def _epochs(setup: Setup, model: keras.Model) -> Step:
    return make_train(parts.correct(setup, model))


style("epochs", mode="train", weights="")(_epochs)
style("epochs, dropout", mode="train", weights="", dropout=True, regularizer="l2")(_epochs)


@style("epochs, tf.data, metric", mode="train", weights="", dropout=False)
def _dataset(setup: Setup, model: keras.Model) -> Step:
    step = tf.function(with_compute_loss(setup, model))

    def train(model: keras.Model, x: Any, y: Any, epochs: int) -> dict:
        dataset = tf.data.Dataset.from_tensor_slices((x, y)).batch(parts.BATCH)
        mean, history = keras.metrics.Mean(), {"loss": []}
        for _ in range(epochs):
            mean.reset_state()
            for x_batch, y_batch in dataset:
                loss = step(model, x_batch, y_batch)["loss"]
                mean.update_state(loss, sample_weight=len(keras.tree.flatten(x_batch)[0]))
            history["loss"].append(float(mean.result()))
        return history

    return train


def cases(
    count: int, networks: tuple[str, ...] = NETWORKS, seed: int = 2
) -> Iterator[tuple[Style, Setup]]:
    """As many correct loops: the styles in turn, the network and loss by chance."""
    rng = np.random.default_rng(seed)
    for i in range(count):
        style = STYLES[i % len(STYLES)]
        while True:
            network = str(rng.choice(networks))
            loss = str(rng.choice(LOSSES[network]))
            setup = draw(network, loss, seed + i // len(STYLES))
            setup = dataclasses.replace(setup, **style.needs)
            if style.applies(setup):
                break
        yield style, setup
