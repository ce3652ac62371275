"""A correct loop, written by hand, in parts that a fault can replace one at a time."""

import dataclasses
import weakref
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from faults.networks import BATCH, MICRO, Head, Setup, slope

Arrays = Any
# The optimizer of a function, where it is its own: for the check of the effect.
OWN_OPTIMIZER: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


@dataclasses.dataclass
class Result:
    """What a pass gives: gradients, the loss with all that is added, the loss of the data alone."""

    grads: list
    loss: tf.Tensor
    data: tf.Tensor


def prepare(x: Arrays, y: Arrays, w: Arrays) -> tuple[Arrays, Arrays, Arrays]:
    return x, y, w


def forward(model: keras.Model, x: Arrays) -> Arrays:
    return model(x, training=True)


def elementwise(head: Head, y: tf.Tensor, p: tf.Tensor) -> tf.Tensor:
    """A loss for every example, or for every token."""
    if head.kind == "mse":
        return keras.losses.mean_squared_error(y, p)
    if head.kind == "bce":
        y = tf.reshape(y, tf.shape(p))
        return keras.losses.binary_crossentropy(y, p, head.logits, head.smoothing)
    return keras.losses.sparse_categorical_crossentropy(y, p, from_logits=head.logits)


def reduce(values: tf.Tensor, w: tf.Tensor | None, mask: tf.Tensor | None) -> tf.Tensor:
    """Weighted sum over the number of examples, or of tokens that are no padding."""
    if w is not None:
        values = values * w
    if mask is not None:
        return tf.reduce_sum(values * mask) / tf.reduce_sum(mask)
    return tf.reduce_mean(values)


def head_weight(head: Head) -> float:
    return head.weight


def mask_of(loop: "Loop", x: Arrays) -> tf.Tensor | None:
    return tf.cast(tf.not_equal(x, 0), tf.float32) if loop.setup.masked else None


def data_loss(loop: "Loop", x: Arrays, y: Arrays, y_pred: Arrays, w: Arrays) -> tf.Tensor:
    total = 0.0
    for head in loop.setup.heads:
        target, output, weights = (
            v[head.name] if isinstance(v, dict) else v for v in (y, y_pred, w)
        )
        values = loop.elementwise(head, target, output)
        total += loop.head_weight(head) * loop.reduce(values, weights, loop.mask(loop, x))
    return total


def penalty(loop: "Loop", model: keras.Model, x: Arrays) -> tf.Tensor:
    """What is added to the loss of the data."""
    added = tf.reduce_sum(model.losses) if model.losses else tf.constant(0.0)
    if loop.setup.penalty:
        added += slope(model, x)
    return added


def variables(model: keras.Model) -> list:
    return model.trainable_variables


def scale(loop: "Loop", loss: tf.Tensor) -> tf.Tensor:
    return loop.optimizer.scale_loss(loss)


def one_pass(loop: "Loop", model: keras.Model, x: Arrays, y: Arrays, w: Arrays) -> Result:
    with tf.GradientTape() as tape:
        y_pred = loop.forward(model, x)
        data = loop.data_loss(loop, x, y, y_pred, w)
        loss = data + loop.penalty(loop, model, x)
        scaled = loop.scale(loop, loss)
    return Result(tape.gradient(scaled, loop.variables(model)), loss, data)


def micro_passes(
    loop: "Loop",
    model: keras.Model,
    x: Arrays,
    y: Arrays,
    w: Arrays,
    sizes: tuple[int, ...],
    factors: tuple[float, ...],
    after: Callable[[], None] = lambda: None,
) -> Result:
    """Gradients of parts of the batch, each times its factor, added up."""
    total, begin = None, 0
    for size, factor in zip(sizes, factors, strict=True):
        part = slice(begin, begin + size)
        parts = (
            keras.tree.map_structure(lambda v: v[part], a) if a is not None else None  # noqa: B023
            for a in (x, y, w)
        )
        r = one_pass(loop, model, *parts)
        r = Result(
            [factor * tf.convert_to_tensor(g) for g in r.grads], factor * r.loss, factor * r.data
        )
        if total is not None:
            grads = [a + b for a, b in zip(total.grads, r.grads, strict=True)]
            r = Result(grads, total.loss + r.loss, total.data + r.data)
        total, begin = r, begin + size
        after()
    return total


def micro_mean(loop: "Loop", model: keras.Model, x: Arrays, y: Arrays, w: Arrays) -> Result:
    """Three parts of seven rows and as many tokens, averaged."""
    return micro_passes(loop, model, x, y, w, (BATCH // MICRO,) * MICRO, (1 / MICRO,) * MICRO)


def process(grads: list) -> list:
    return grads


def apply(loop: "Loop", grads: list, variables: list) -> None:
    loop.optimizer.apply_gradients(zip(grads, variables, strict=True))


def after(loop: "Loop", model: keras.Model, x: Arrays) -> None:
    pass


def logs(result: Result) -> dict[str, Any]:
    return {"loss": result.loss}


def order(loop: "Loop", rows: int, epoch: int) -> np.ndarray:
    return np.random.default_rng().permutation(rows) if loop.setup.shuffle else np.arange(rows)


def batches(indices: np.ndarray) -> list[np.ndarray]:
    return [indices[i : i + BATCH] for i in range(0, len(indices), BATCH)]


def epoch_loss(loop: "Loop", losses: list[float], sizes: list[int], x: Any, y: Any) -> float:
    return float(np.average(losses, weights=sizes))


def epoch_end(loop: "Loop", model: keras.Model) -> None:
    pass


@dataclasses.dataclass(frozen=True)
class Loop:
    """The parts, the correct ones unless a fault replaced them."""

    setup: Setup
    model: keras.Model
    optimizer: Any = None  # the model's, unless it is the loop's own
    prepare: Callable = prepare
    forward: Callable = forward
    elementwise: Callable = elementwise
    mask: Callable = mask_of
    reduce: Callable = reduce
    head_weight: Callable = head_weight
    data_loss: Callable = data_loss
    penalty: Callable = penalty
    variables: Callable = variables
    scale: Callable = scale
    compute: Callable = one_pass
    process: Callable = process
    apply: Callable = apply
    after: Callable = after
    logs: Callable = logs
    order: Callable = order
    batches: Callable = batches
    epoch_loss: Callable = epoch_loss
    epoch_end: Callable = epoch_end

    def changed(self, **parts: Any) -> "Loop":
        return dataclasses.replace(self, **parts)

    def bound(self, model: keras.Model) -> "Loop":
        """With the model's optimizer, if it has none of its own."""
        return self if self.optimizer else self.changed(optimizer=model.optimizer)

    def own_optimizer(self, **config: Any) -> Any:
        """An optimizer configured as the compiled one but for what is given."""
        theirs = self.model.optimizer
        return type(theirs).from_config({**theirs.get_config(), **config})


def correct(setup: Setup, model: keras.Model) -> Loop:
    return Loop(setup, model)


def make_step(loop: Loop) -> Callable:
    """The user's function of one step."""

    def train_one_batch(model: keras.Model, x: Any, y: Any, sample_weight: Any = None) -> dict:
        bound = loop.bound(model)
        x, y, w = loop.prepare(x, y, sample_weight)
        result = loop.compute(bound, model, x, y, w)
        grads = loop.process(result.grads)
        loop.apply(bound, grads, loop.variables(model))
        loop.after(bound, model, x)
        return loop.logs(result)

    OWN_OPTIMIZER[train_one_batch] = loop.optimizer
    return train_one_batch


def make_train(loop: Loop) -> Callable:
    """The user's function of several epochs."""
    step = make_step(loop)

    def train(model: keras.Model, x: Any, y: Any, epochs: int) -> dict:
        history: dict[str, list] = {"loss": []}
        rows = len(keras.tree.flatten(x)[0])
        for epoch in range(epochs):
            losses, sizes = [], []
            for chosen in loop.batches(loop.order(loop, rows, epoch)):
                part = keras.tree.map_structure(lambda v: v[chosen], (x, y))  # noqa: B023
                losses.append(float(step(model, *part)["loss"]))
                sizes.append(len(chosen))
            history["loss"].append(loop.epoch_loss(loop, losses, sizes, x, y))
            loop.epoch_end(loop.bound(model), model)
        return history

    OWN_OPTIMIZER[train] = loop.optimizer
    return train
