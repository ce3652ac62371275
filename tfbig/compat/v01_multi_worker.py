"""V1: `fit` fails under MultiWorkerMirroredStrategy with more than one worker.

Before the first step Keras averages the first batch over the replicas, to learn its shapes, and a
batch of two workers is no tensor: ValueError. Behind it waits a second failure: the logs, scalars,
are averaged along an axis 0 that they have not. A strategy of one worker trains.
"""

import functools
import json
import socket

import keras
import numpy as np
import tensorflow as tf

from tfbig.compat import replicas, trial

SUMMARY = "fit fails under MultiWorkerMirroredStrategy with more than one worker"
WHEN = ""
MEND = "use MirroredStrategy on one machine, or KERAS_BACKEND=jax with keras.distribution"


def meets(model: keras.Model) -> bool:
    """Whether the model was made under that strategy."""
    return isinstance(model.distribute_strategy, tf.distribute.MultiWorkerMirroredStrategy)


def present() -> bool:
    """Whether two workers of this machine end in an error. They take about ten seconds."""
    return measured() != ""


@functools.cache
def measured() -> str:
    """The error of the first of two workers, or ""."""
    with socket.socket() as first, socket.socket() as second:
        first.bind(("localhost", 0))
        second.bind(("localhost", 0))
        addresses = [f"localhost:{s.getsockname()[1]}" for s in (first, second)]
    code = "from tfbig.compat import v01_multi_worker; v01_multi_worker.main()"
    cluster = {"worker": addresses}
    configs = [{"cluster": cluster, "task": {"type": "worker", "index": k}} for k in range(2)]
    workers = [replicas.child(code, TF_CONFIG=json.dumps(config)) for config in configs]
    return [replicas.answer(worker) for worker in workers][0]


def main() -> None:
    """What a worker runs: it fits a line to two points and prints the error, as JSON."""
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    model = replicas.line(strategy, keras.optimizers.SGD)
    ones = np.ones((2, 1))
    print(json.dumps(trial.error(lambda: model.fit(ones, ones, batch_size=2, verbose=0))))
