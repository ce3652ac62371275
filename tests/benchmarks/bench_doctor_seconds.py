"""Seconds of a diagnosis: the document's network, and a 14 M-parameter transformer of Keras layers.

    python tests/benchmarks/bench_doctor_seconds.py

A right loop, one with a fault in the catalogue, and one with a fault that is not in it, which is
the slowest: every hypothesis is tried. Asked for: 10 s for the first network, 60 s for the second.
"""

import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import bench_loop
import bench_transformer
import keras
import numpy as np
import tensorflow as tf

from tfbig import parity


def loop(loss_of):
    """A step with a loss of `(y, y_pred)`."""

    def step(model, x, y, sample_weight):
        with tf.GradientTape() as tape:
            loss = loss_of(y, model(x, training=True))
        variables = model.trainable_variables
        model.optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables))

    return tf.function(step)


def measure(name: str, model: keras.Model, x: np.ndarray, y: np.ndarray, losses) -> None:
    for kind, added in (
        ("right", lambda p: 0.0),
        ("a sum", None),
        ("made up", lambda p: 0.01 * tf.reduce_mean(tf.sin(p))),
    ):
        if added is None:
            step = loop(lambda y, p: tf.reduce_sum(losses(y, p)))
        else:
            step = loop(lambda y, p, added=added: tf.reduce_mean(losses(y, p)) + added(p))
        begin = time.perf_counter()
        report = parity.diagnose(model, x, y, loop=step)
        seconds = time.perf_counter() - begin
        found = [c.id for c in report.causes] or ("none" if report.matches else "not explained")
        print(f"{name:24s} {kind:8s} {seconds:6.1f} s  {found}")


def main() -> None:
    model = bench_loop.build()
    x, y = bench_loop.data(32)
    measure("the document's network", model, x, y, keras.losses.binary_crossentropy)
    model = bench_transformer.build()
    rng = np.random.default_rng(0)
    x = rng.integers(0, bench_transformer.VOCABULARY, (6, bench_transformer.LENGTH))
    y = x % (bench_transformer.VOCABULARY // 4)
    measure(
        f"{model.count_params() / 1e6:.1f} M transformer",
        model,
        x,
        y,
        lambda y, p: keras.losses.sparse_categorical_crossentropy(y, p, from_logits=True),
    )


if __name__ == "__main__":
    main()
