"""The steps of one update, as free functions that the loop and the fixes share.

Between the gradient and the weights stand, in this order: aggregate over the replicas, merge
repeated embedding rows, undo the loss scale, check that all is finite, clip, apply. Keras's
optimizer does the last four by itself and is right about them on one replica; it never merges
(defect V2). So on one replica an update is: merge, then hand over to the optimizer.
"""

from collections.abc import Sequence

import keras
import tensorflow as tf


def merge_repeated_rows(gradient: tf.Tensor | tf.IndexedSlices | None):
    """Sums the rows of a sparse gradient that belong to the same row of the variable.

    The gradient of an embedding comes as `tf.IndexedSlices`: one row for each token of the batch.
    A token that occurs twice gives two rows, and whoever squares the values (Adam, RMSprop,
    clipping) must add them first: (a + b)**2 is not a**2 + b**2.

    Args:
        gradient: a dense tensor, which is returned as it is; `tf.IndexedSlices` with values of
            shape `(tokens, dim)` and indices of shape `(tokens,)`; or `None`, for a variable that
            the loss does not reach.

    Returns:
        The same gradient with each row index at most once.

    >>> import tensorflow as tf
    >>> g = tf.IndexedSlices(tf.ones((3, 2)), tf.constant([4, 0, 4]), tf.constant([5, 2]))
    >>> merged = merge_repeated_rows(g)
    >>> merged.indices.numpy().tolist(), merged.values.numpy().tolist()
    ([4, 0], [[2.0, 2.0], [1.0, 1.0]])
    """
    if not isinstance(gradient, tf.IndexedSlices):
        return gradient
    rows, position = tf.unique(gradient.indices)  # (rows,), (tokens,)
    values = tf.math.unsorted_segment_sum(gradient.values, position, tf.size(rows))
    return tf.IndexedSlices(values, rows, gradient.dense_shape)


def apply_gradients(
    optimizer: keras.optimizers.Optimizer,
    gradients: Sequence[tf.Tensor | tf.IndexedSlices | None],
    variables: Sequence[keras.Variable],
) -> None:
    """Moves the variables one step: merges repeated rows, then lets the optimizer do the rest.

    Args:
        optimizer: a Keras optimizer; it unscales, checks, clips, decays and applies.
        gradients: of `optimizer.scale_loss(loss)`, one for each variable.
        variables: the model's trainable variables, in the same order.

    >>> import keras
    >>> w = keras.Variable([1.0])
    >>> apply_gradients(keras.optimizers.SGD(0.5), [keras.ops.ones(1)], [w])
    >>> float(w[0])
    0.5
    """
    optimizer.apply([merge_repeated_rows(g) for g in gradients], variables)
