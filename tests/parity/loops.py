"""Small networks, and a loop by hand of parts, each of which a fault can replace.

13 examples, 5 features, 4 hidden units, 3 classes, 7 places in time: no count is another one, so
that no wrong factor is right by chance.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tests.conformance.networks import Sparse

layers, losses, optimizers = keras.layers, keras.losses, keras.optimizers

ROWS, FEATURES, HIDDEN, CLASSES, TIME, WORDS = 13, 5, 4, 3, 7, 9
MOMENTUM = 0.5  # of BatchNorm
RATE = 0.05
_RNG = np.random.default_rng(3)
X = _RNG.normal(size=(ROWS, FEATURES)).astype("float32")
COLUMN = (X @ _RNG.normal(size=(FEATURES, 1)) + 0.7).astype("float32")
FLAT = COLUMN[:, 0]
BINARY = (COLUMN > 0.5).astype("float32")
NUMBERS = np.digitize(FLAT, [-0.5, 1.0]).astype("int32")
WEIGHTS = _RNG.uniform(0.1, 1.1, size=ROWS).astype("float32")
CLASS_WEIGHT = {0: 0.4, 1: 1.7, 2: 2.9}
TOKENS = _RNG.integers(1, WORDS, size=(ROWS, TIME)).astype("int32")
TOKENS[np.arange(TIME) >= (2 + np.arange(ROWS) % 5)[:, None]] = 0  # padding
VALID = int((TOKENS > 0).sum())
TAGS = (TOKENS % CLASSES).astype("int32")
TWO = {"a": COLUMN, "b": BINARY}


def compiled(model: keras.Model, loss: Any = "mse", optimizer: Any = None, **more: Any) -> Any:
    model.compile(optimizer or optimizers.SGD(RATE), loss, **more)
    return model


def dense(
    loss: Any = "mse",
    optimizer: Any = None,
    last: int = 1,
    activation: str | None = None,
    between: Any = (),
    scale: float = 3.0,
    **first: Any,
) -> keras.Model:
    """Two hidden layers with `between` after the first; `first` are arguments of that one."""
    model = keras.Sequential(
        [
            keras.Input((FEATURES,)),
            layers.Dense(HIDDEN, "tanh", **first),
            *between,
            layers.Dense(HIDDEN, "tanh"),
            layers.Dense(last, activation, dtype="float32"),
        ]
    )
    model.layers[-1].kernel.assign(model.layers[-1].kernel * scale)
    return compiled(model, loss, optimizer)


def classes(from_logits: bool = True, scale: float = 3.0) -> keras.Model:
    loss = losses.SparseCategoricalCrossentropy(from_logits=from_logits)
    return dense(loss, None, CLASSES, None if from_logits else "softmax", scale=scale)


def regular() -> keras.Model:
    return dense(kernel_regularizer=keras.regularizers.L2(0.1))


def dropping() -> keras.Model:
    return dense(between=[layers.Dropout(0.4, seed=4)])


def norm() -> keras.Model:
    return dense(between=[layers.BatchNormalization(momentum=MOMENTUM)])


def sparse() -> keras.Model:
    return dense(between=[Sparse()])


def tagger(optimizer: Any = None, mask: bool = True) -> keras.Model:
    """A class for each place in time, of which some are padding."""
    model = keras.Sequential(
        [
            keras.Input((TIME,), dtype="int32"),
            layers.Embedding(WORDS, HIDDEN, mask_zero=mask),
            layers.Dense(HIDDEN, "tanh"),
            layers.Dense(CLASSES),
        ]
    )
    return compiled(model, losses.SparseCategoricalCrossentropy(from_logits=True), optimizer)


def two_heads() -> keras.Model:
    inputs = keras.Input((FEATURES,))
    h = layers.Dense(HIDDEN, "tanh")(inputs)
    outputs = {"a": layers.Dense(1, name="a")(h), "b": layers.Dense(1, "sigmoid", name="b")(h)}
    kinds = {"a": "mse", "b": "binary_crossentropy"}
    return compiled(keras.Model(inputs, outputs), kinds, loss_weights={"a": 0.3, "b": 1.7})


def penalised() -> keras.Model:
    inputs = keras.Input((FEATURES,))
    outputs = layers.Dense(1)(layers.Dense(HIDDEN, "tanh")(inputs))
    return compiled(Penalised(inputs, outputs))


class Penalised(keras.Model):
    """Adds the mean square of the slope."""

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        loss = super().compute_loss(x, y, y_pred, sample_weight, training=training)
        with tf.GradientTape() as tape:
            tape.watch(x)
            outputs = tf.reduce_sum(self(x, training=False))
        return loss + tf.reduce_mean(tape.gradient(outputs, x) ** 2)


def twin(model: keras.Model, **other: Any) -> Any:
    """An optimizer of the loop's own, configured as the model's but for what is given."""
    theirs = model.optimizer
    return type(theirs).from_config({**theirs.get_config(), **other})


# The parts. A loss is given the labels, the predictions and the weights.


def forward(model: keras.Model, x: Any) -> Any:
    return model(x, training=True)


def everything(model: keras.Model) -> list:
    return model.trainable_variables


def scaled(model: keras.Model, loss: tf.Tensor) -> tf.Tensor:
    return model.optimizer.scale_loss(loss)


def penalties(model: keras.Model) -> Any:
    return tf.reduce_sum(model.losses) if model.losses else 0.0


def descend(model: keras.Model, gradients: list, variables: list) -> None:
    model.optimizer.apply_gradients(zip(gradients, variables))


def by_hand(
    loss: Callable | None = None,
    call: Callable = forward,
    add: Callable = penalties,
    scale: Callable = scaled,
    variables: Callable = everything,
    change: Callable = list,
    update: Callable = descend,
    after: Callable = lambda model, x: None,
    given: Callable = lambda x, y, w: (x, y, w),
    logs: Callable = lambda whole, data: {"loss": whole},
) -> Callable:
    """A loop as users write it; without a loss that of the model, penalties included."""

    def step(model: keras.Model, x: Any, y: Any, sample_weight: Any = None) -> Any:
        x, y, sample_weight = given(x, y, sample_weight)
        trained = variables(model)
        with tf.GradientTape() as tape:
            predictions = call(model, x)
            if loss is None:
                data = whole = model.compute_loss(x, y, predictions, sample_weight)
            else:
                data = loss(y, predictions, sample_weight)
                whole = data + add(model)
            to_differentiate = scale(model, whole)
        gradients = tape.gradient(to_differentiate, trained)
        after(model, x)
        update(model, change(gradients), trained)
        return logs(whole, data)

    return step


def mse(y: Any, p: Any, w: Any) -> Any:
    return tf.reduce_mean((tf.reshape(y, tf.shape(p)) - p) ** 2)


def summed(y: Any, p: Any, w: Any) -> Any:
    return tf.reduce_sum((y - p) ** 2)


def broadcast(y: Any, p: Any, w: Any) -> Any:
    return tf.reduce_mean((y - p) ** 2)


def micro(
    sizes: tuple[int, ...],
    factors: tuple[float, ...],
    after: Callable = lambda model: None,
    loss: Callable = mse,
) -> Callable:
    """A loop that accumulates: the gradient of each micro-batch times its factor."""

    def step(model: keras.Model, x: Any, y: Any, sample_weight: Any = None) -> None:
        total, begin = [0.0] * len(model.trainable_variables), 0
        for size, factor in zip(sizes, factors, strict=True):
            part = slice(begin, begin + size)
            begin += size
            with tf.GradientTape() as tape:
                value = loss(y[part], model(x[part], training=True), None)
            gradients = tape.gradient(value, model.trainable_variables)
            total = [t + factor * g for t, g in zip(total, gradients)]
            after(model)
        model.optimizer.apply_gradients(zip(total, model.trainable_variables))

    return step


@dataclasses.dataclass(frozen=True)
class Fault:
    """A loop with one fault.

    Attributes:
        id: of the catalogue.
        network: makes the compiled model.
        data: as `diagnose` takes it.
        loop: makes the loop for a model.
        evidence: what the cause's evidence must hold.
        ratio: of the gradient of each variable to that of `fit`, where it is one number.
        name: tells it from others of the same id.
    """

    id: str
    network: Callable[[], keras.Model]
    data: tuple
    loop: Callable[[keras.Model], Callable]
    evidence: str = ""
    ratio: float | None = None
    class_weight: dict | None = None
    name: str = ""


def with_optimizer(optimizer: Any, **parts: Any) -> Callable:
    """A loop that applies with this optimizer."""
    return by_hand(update=lambda m, g, v: optimizer.apply_gradients(zip(g, v)), **parts)


def own(parts: Any = (), **other: Any) -> Callable[[keras.Model], Callable]:
    """A loop with an optimizer of its own, which is the model's but for what is given."""
    return lambda model: with_optimizer(twin(model, **other), **dict(parts))


def with_parts(**parts: Any) -> Callable[[keras.Model], Callable]:
    return lambda model: by_hand(**parts)
