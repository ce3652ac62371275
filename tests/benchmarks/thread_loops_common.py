"""What the loops of the threads share: the case itself, small data, and a script's globals."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

own: dict[str, Any] = {}
"""What a user's script keeps in globals (an optimizer, a metric); each build makes it anew."""


@dataclasses.dataclass(frozen=True)
class ThreadCase:
    """A loop as somebody wrote it in a thread, and the right answers about it.

    Attributes:
        name: unique.
        thread: where such a loop was shown; of a correct one, the thread whose mended loop it is.
        build: makes the compiled model; the caller seeds.
        data: makes `(x, y)` or `(x, y, sample_weight)`.
        loop: `fn(model, x, y, sample_weight)`, one step on the batch. If it and `train` are None,
            then the model overrides `train_step`.
        train: `fn(model, x, y, epochs)`, a whole training.
        expected: ids of the catalogue that are right as the first cause; empty for a correct loop.
        class_weight: as for `fit`.
        options: of a whole training: `epochs`, `batch_size`, `shuffle`.
    """

    name: str
    thread: str
    build: Callable[[], keras.Model]
    data: Callable[[], tuple]
    loop: Callable | None = None
    train: Callable | None = None
    expected: frozenset[str] = frozenset()
    class_weight: dict | None = None
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def case(name, thread, build, data, loop=None, train=None, **more) -> ThreadCase:
    """A ThreadCase; the optimizer of a loop that is a tf.function has its slots at once.

    A tf.function may create variables in its first trace only, and here it gets several models.
    """

    def built() -> keras.Model:
        model = build()
        model.optimizer.build(model.trainable_variables)
        return model

    graph = isinstance(loop, tf.types.experimental.PolymorphicFunction)
    return ThreadCase(name, thread, built if graph else build, data, loop, train, **more)


def regression(rows: int = 32, features: int = 4, column: bool = False) -> tuple:
    """Targets that depend on the inputs; of shape (rows,), or (rows, 1) if `column`."""
    rng = np.random.default_rng(rows + features)
    x = rng.normal(size=(rows, features)).astype("float32")
    y = (x @ rng.normal(size=features) + np.sin(x[:, 0]) + 1.5).astype("float32")
    return x, y[:, None] if column else y


def labels(rows: int = 32, features: int = 6, classes: int = 4, scale: float = 1.0) -> tuple:
    """Integer labels of shape (rows,); a large `scale` makes a network sure of itself."""
    rng = np.random.default_rng(rows * classes)
    x = (scale * rng.normal(size=(rows, features))).astype("float32")
    y = np.argmax(x @ rng.normal(size=(features, classes)), axis=1).astype("int32")
    return x, y


def binary(rows: int = 32, features: int = 6, scale: float = 1.0) -> tuple:
    """Labels 0. and 1. of shape (rows, 1)."""
    x, y = labels(rows, features, classes=2, scale=scale)
    return x, y[:, None].astype("float32")


def images(rows: int = 16, classes: int = 4, column: bool = False) -> tuple:
    """Small pictures with brightness that tells the class; labels (rows,) or (rows, 1)."""
    rng = np.random.default_rng(rows + classes)
    y = rng.integers(0, classes, size=rows).astype("int32")
    x = rng.normal(size=(rows, 8, 8, 3)) + y[:, None, None, None] - 1.0
    return x.astype("float32"), y[:, None] if column else y


def tokens(rows: int = 12, length: int = 8, vocabulary: int = 20, tags: int = 5) -> tuple:
    """Sequences with zeros at their ends, and a tag for each token (0 at the padding)."""
    rng = np.random.default_rng(rows + length)
    x = rng.integers(1, vocabulary, size=(rows, length))
    lengths = rng.integers(2, length, size=rows)
    x[np.arange(length) >= lengths[:, None]] = 0
    y = np.where(x > 0, x % (tags - 1) + 1, 0)
    return x.astype("int32"), y.astype("int32")


def weighted(data: tuple) -> tuple:
    """The data with a sample weight for each row, of mean other than one."""
    rng = np.random.default_rng(7)
    return (*data, rng.uniform(0.1, 1.2, size=len(data[0])).astype("float32"))
