"""V26: a step without data at the end of every epoch, for datasets of unknown length.

`fit` and `evaluate` fetch the batch inside the compiled step. When the data are at an end the fetch
fails, but the operations that do not wait for the batch have run by then: `iterations`, weight
decay, the dropout seed and the count of the loss average move on without a batch. With 6 batches
`iterations` grows by 7 an epoch, and `evaluate` reports 0.857 for 1.0. It needs a dataset of
unknown cardinality (`from_generator`, `filter`), graph mode and `steps_per_execution=1`.

The fix fetches the batch outside of the compiled step.
"""

import contextlib
from collections.abc import Iterator

import keras
import numpy as np
import tensorflow as tf
from keras.src.backend.tensorflow.trainer import TFEpochIterator

from tfbig.compat import trial

SUMMARY = "fit and evaluate take one more step, without data, over a dataset of unknown length"
WHEN = "if you fit on a dataset of unknown length (from_generator, filter)"
MEND = "tfbig.compat.fixed(); or data.apply(tf.data.experimental.assert_cardinality(batches))"


def meets(model: keras.Model) -> bool:
    """Whether each step is a graph of its own that is not compiled by XLA."""
    return model.steps_per_execution == 1 and not (model.run_eagerly or model.jit_compile)


class _FetchedOutside:
    """Iterates over a dataset, one epoch at a time, in Python."""

    def __init__(self, dataset: tf.data.Dataset) -> None:
        self._dataset = dataset

    def __iter__(self) -> Iterator:
        yield from self._dataset
        # Keras takes the end of data from TensorFlow's error; a mere end of iteration it takes for
        # a step that returned nothing.
        raise tf.errors.OutOfRangeError(None, None, "End of sequence")


@trial.traceless()
def present() -> bool:
    """Whether `iterations` counts 2 after the single batch of a dataset of unknown length."""
    model = keras.Sequential([keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(), "mse")
    data = tf.data.Dataset.from_tensors((np.ones((1, 1)), np.ones((1, 1))))
    data = data.filter(lambda x, y: True)  # which makes its length unknown
    model.fit(data, verbose=0)
    return int(model.optimizer.iterations) == 2


@contextlib.contextmanager
def patched() -> Iterator[None]:
    """Has Keras's epoch iterator fetch, wherever the compiled step could run out of data."""
    original = TFEpochIterator._get_iterator

    def _get_iterator(self):
        dataset = original(self)
        if self.steps_per_execution == 1 and self.data_adapter.num_batches is None:
            return _FetchedOutside(dataset)
        return dataset

    TFEpochIterator._get_iterator = _get_iterator
    try:
        yield
    finally:
        TFEpochIterator._get_iterator = original
