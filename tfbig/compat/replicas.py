"""Probes that need two replicas, on any machine: a Python of its own with two logical CPUs.

TensorFlow takes its logical devices once, before it starts, so the program that asks cannot have
them. One child answers for all such defects, in about ten seconds, once per process.
"""

import functools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from tfbig.compat import trial

LIMIT_S = 300


def measured(name: str) -> Any:
    """What the probe of a defect gives under two replicas: numbers, or the name of an error."""
    return _all()[name]


def child(code: str, **environment: str) -> subprocess.Popen:
    """Starts a Python that sees what this one sees, except GPUs."""
    own = {
        "CUDA_VISIBLE_DEVICES": "-1",
        "KERAS_BACKEND": "tensorflow",
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", code],
        env={**os.environ, **own, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def answer(process: subprocess.Popen) -> Any:
    """What a child printed last, read as JSON.

    Raises:
        RuntimeError: if it failed or took too long; a probe that did not run knows nothing.
    """
    try:
        out, err = process.communicate(timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise RuntimeError(f"A probe took longer than {LIMIT_S} s.") from None
    if process.returncode:
        raise RuntimeError("A probe failed in its process:\n" + err[-2000:])
    return json.loads(out.splitlines()[-1])


def update(
    strategy: tf.distribute.Strategy,
    optimizer: Callable[[], keras.optimizers.Optimizer],
    gradients: Sequence[Sequence[float]],
    steps: int = 1,
) -> list[float | str]:
    """Where `steps` updates, in a graph as in `fit`, take a variable from zero.

    Args:
        strategy: of two replicas.
        optimizer: makes it, under the strategy's scope.
        gradients: one for each replica.
        steps: how many times they are applied.

    Returns:
        The variable, rounded to five digits; infinities are strings, which JSON lacks.
    """
    with strategy.scope():
        variable = keras.Variable([0.0] * len(gradients[0]))
        rule = optimizer()
        rule.build([variable])
    each = strategy.experimental_distribute_values_from_function(
        lambda replica: tf.constant(gradients[replica.replica_id_in_sync_group])
    )
    run = tf.function(
        lambda g: strategy.run(lambda mine: rule.apply([mine], [variable]), args=(g,))
    )
    for _ in range(steps):
        run(each)
    return [round(v, 5) if abs(v) < float("inf") else str(v) for v in variable.numpy().tolist()]


def line(
    strategy: tf.distribute.Strategy,
    optimizer: Callable[[], keras.optimizers.Optimizer],
    loss: str | None = "mse",
    kind: type[keras.Model] = keras.Model,
) -> keras.Model:
    """The model y = w x with w = 0, compiled under the strategy."""
    with strategy.scope():
        x = keras.Input((1,))
        w = keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")
        model = kind(x, w(x))
        model.compile(optimizer(), loss)
    return model


@functools.cache
def _all() -> dict[str, Any]:
    return answer(child("from tfbig.compat import replicas; replicas.main()"))


def main() -> None:
    """What the child runs: all probes, their answers as one line of JSON."""
    from tfbig.compat import (
        v03_finite_on_one_replica,
        v04_clip_before_sum,
        v08_accumulate_mirrored,
        v09_overwrite_mirrored,
        v10_uneven_batch,
        v12_mean_per_replica,
    )

    probes = {
        "V3": v03_finite_on_one_replica,
        "V4": v04_clip_before_sum,
        "V8": v08_accumulate_mirrored,
        "V9": v09_overwrite_mirrored,
        "V10": v10_uneven_batch,
        "V12": v12_mean_per_replica,
    }
    cpu = tf.config.list_physical_devices("CPU")[0]
    two = [tf.config.LogicalDeviceConfiguration() for _ in range(2)]
    tf.config.set_logical_device_configuration(cpu, two)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    with trial.traceless():
        answers = {name: probe.measured(strategy) for name, probe in probes.items()}
    print(json.dumps(answers))
