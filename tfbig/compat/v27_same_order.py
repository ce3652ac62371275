"""V27: after `keras.utils.set_random_seed`, `fit` visits arrays in one order in every epoch.

The permutation is drawn by an operation whose seed is fixed when the data pipeline is built, and
the pipeline starts afresh each epoch; so each epoch, and each later call of `fit`, draws the same
one. Without a seed the orders differ.

The fix draws the permutation of epoch e from a seed of the call and e: it differs from epoch to
epoch and from call to call, and the same program gives the same orders again. The loop calls
`permutation` itself, so both drivers visit the same batches.
"""

import contextlib
import random
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras.src.trainers.data_adapters import array_slicing
from keras.src.trainers.data_adapters.array_data_adapter import ArrayDataAdapter
from tensorflow.python.eager import context

from tfbig.compat import trial

SUMMARY = "after set_random_seed, fit visits arrays in the same order in every epoch"
WHEN = "if you call keras.utils.set_random_seed and fit on arrays"
MEND = "tfbig.compat.fixed()"

_stock_dataset = ArrayDataAdapter.get_tf_dataset


class Orders:
    """The orders in which one call of `fit` visits its examples: a new one at each `next()`.

    >>> import random
    >>> random.seed(0)
    >>> orders = Orders(5)
    >>> sorted(orders.next().tolist()), orders.epoch
    ([0, 1, 2, 3, 4], 1)
    """

    def __init__(self, num_samples: int) -> None:
        self.num_samples = num_samples
        # `set_random_seed` seeds Python's generator too, and Keras draws its own seeds from it.
        self.seed = random.randint(1, int(1e9))
        self.epoch = 0

    def next(self) -> np.ndarray:
        """The order of the next epoch: `(num_samples,)`, int64."""
        order = permutation(self.seed, self.epoch, self.num_samples)
        self.epoch += 1
        return order


def permutation(seed: int, epoch: int, num_samples: int) -> np.ndarray:
    """The order of one epoch, `(num_samples,)`, from nothing but its arguments.

    >>> permutation(1, 0, 4).tolist() == permutation(1, 0, 4).tolist()
    True
    """
    return np.random.default_rng([seed, epoch]).permutation(num_samples)


def seeded() -> bool:
    """Whether a seed is set for the whole program: then stock `fit` repeats its order."""
    return context.global_seed() is not None


def whole(adapter: ArrayDataAdapter) -> Any:
    """All the examples of an adapter as one batch, in the dtypes that Keras gives to them.

    Returns:
        Tensors of shape `(num_samples, ...)` nested as the data are, or `None` where one of them
        is sparse.
    """
    arrays = array_slicing.convert_to_sliceable(adapter._inputs, target_backend="tensorflow")
    if any(
        isinstance(leaf, array_slicing.TensorflowSparseWrapper)
        for leaf in keras.tree.flatten(arrays)
    ):
        return None
    tensors = keras.tree.map_structure(
        lambda leaf: None if leaf is None else tf.convert_to_tensor(leaf), arrays
    )
    return keras.tree.lists_to_tuples(tensors)


def meets(model: keras.Model) -> bool:
    """Always: it hinges on the data and the seed."""
    return True


@trial.traceless()
def present() -> bool:
    """Whether an array adapter repeats its order when a seed is set."""
    tf.random.set_seed(1)
    dataset = _stock_dataset(ArrayDataAdapter(np.arange(64), batch_size=64, shuffle=True))
    first, second = (next(iter(dataset)).numpy() for _ in range(2))
    return bool((first == second).all())


@contextlib.contextmanager
def patched() -> Iterator[None]:
    """Gives Keras's array adapter a new order in each epoch.

    Sparse tensors keep Keras's order: they cannot be gathered by row. So does `shuffle="batch"`.
    """

    def get_tf_dataset(self):
        if self._shuffle is not True:
            return _stock_dataset(self)
        examples = whole(self)
        if examples is None:
            return _stock_dataset(self)
        orders = Orders(self._num_samples)

        def next_order(_):
            order = tf.numpy_function(orders.next, [], tf.int64)
            return tf.ensure_shape(order, (self._num_samples,))

        def gather(rows, batch_of):
            return keras.tree.map_structure(
                lambda t: None if t is None else tf.gather(t, rows), batch_of
            )

        rows = tf.data.Dataset.range(1).map(next_order)
        rows = rows.flat_map(tf.data.Dataset.from_tensor_slices)
        rows = rows.batch(self._batch_size, drop_remainder=not self._partial_batch_size)
        batches = tf.data.Dataset.zip(rows, tf.data.Dataset.from_tensors(examples).repeat())
        batches = batches.map(gather, num_parallel_calls=tf.data.AUTOTUNE)
        options = tf.data.Options()
        options.experimental_distribute.auto_shard_policy = (
            tf.data.experimental.AutoShardPolicy.DATA
        )
        return batches.with_options(options).prefetch(tf.data.AUTOTUNE)

    ArrayDataAdapter.get_tf_dataset = get_tf_dataset
    try:
        yield
    finally:
        ArrayDataAdapter.get_tf_dataset = _stock_dataset
