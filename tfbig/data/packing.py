"""Packing: token shards as batches for a language model, with no leak between documents.

Every token of a document is a target, its first token and its end token too, so that bits per byte
count the whole text; what a row looks like is said in `tfbig.data.rows`.

To train, documents are put one after the other in an order drawn for the epoch, the stream is cut
into rows, and the rows are shuffled: the rows of one long document do not make up a batch. To
evaluate, each document is read in windows that overlap. Left out: best-fit packing (Ding et al.
2024), which cuts fewer documents; at 13 MB of Python most documents are longer than a row.

Batch i of epoch e is a function of the seed, e and i alone: both drivers see the same batches.
"""

import functools
from typing import TYPE_CHECKING

import numpy as np

from tfbig.data import rows

if TYPE_CHECKING:
    import tensorflow as tf


def packed(
    source: rows.TokenSource,
    length: int,
    batch_size: int,
    seed: int = 0,
    epochs: int | None = 1,
    start_id: int | None = None,
) -> "tf.data.Dataset":
    """Batches to train on: every token of every document is a target once in each epoch.

    The epochs lie in the dataset one after the other, each in another order. So tell `fit`, or the
    loop, where one ends:

        steps = steps_per_epoch(shards, length, batch_size)
        dataset = packed(shards, length, batch_size, epochs=3)
        model.fit(dataset, epochs=3, steps_per_epoch=steps, shuffle=False)

    (Of `epochs=1` alone `fit` would go over the same order again in each of its epochs. Without
    `shuffle=False` Keras warns that it does not shuffle datasets.)

    Args:
        source: token shards.
        length: places in a row.
        batch_size: rows in a batch. The last batch of an epoch is filled up with padding, so that
            all shapes are static and the training step is compiled once.
        seed: of the order of documents and rows.
        epochs: how many the dataset has; None for no end.
        start_id: the token before a document's first: a model's own "beginning" token. By default
            the end token, as GPT-2 has it.

    Returns:
        A dataset of `(inputs, targets, weights)`, each array `(batch, length)`. `inputs` is a dict
        of `token_ids`, `segment_ids` (1, 2, ... within a row, 0 for padding) and `positions`,
        int32; targets int32; weights float32, 0 for padding. A Keras loss divides by the number of
        places, those of padding too; with `reduction="mean_with_sample_weight"`, by the weights.

    Raises:
        ValueError: if the length, the batch size or the number of epochs is below 1.

    >>> source = rows.TokensInMemory([[5, 6, 0], [7, 0]], eos_id=0)
    >>> for inputs, targets, weights in packed(source, length=3, batch_size=2):
    ...     print(sorted(inputs), targets.shape, weights.numpy().sum())
    ['positions', 'segment_ids', 'token_ids'] (2, 3) 5.0
    """
    rows.check_positive(length=length, batch_size=batch_size, epochs=epochs)
    start_id = source.eos_id if start_id is None else start_id

    # Two: a batch of the next epoch is made while the last ones of this epoch are trained on.
    @functools.lru_cache(maxsize=2)
    def layout(epoch: int) -> tuple[rows.Pieces, np.ndarray]:
        rng = np.random.default_rng((seed, epoch))
        pieces = rows.stream_pieces(source, rng.permutation(len(source.sizes)), length)
        return pieces, rng.permutation(pieces.rows)

    steps = steps_per_epoch(source, length, batch_size)

    def batch(number: int) -> tuple[np.ndarray, ...]:
        epoch, step = divmod(number, steps)
        pieces, order = layout(epoch)
        chosen = order[step * batch_size : (step + 1) * batch_size]
        return rows.make_batch(pieces, chosen, source, length, batch_size, start_id)

    count = None if epochs is None else epochs * steps
    return rows.as_dataset(batch, count, length, batch_size)


def steps_per_epoch(source: rows.TokenSource, length: int, batch_size: int) -> int:
    """How many batches of `packed` are an epoch.

    >>> steps_per_epoch(rows.TokensInMemory([[5, 6, 0], [7, 0]], eos_id=0), length=2, batch_size=2)
    2
    """
    return -(-int(source.sizes.sum()) // (length * batch_size))


def evaluation_rows(
    source: rows.TokenSource,
    length: int,
    batch_size: int,
    stride: int | None = None,
    start_id: int | None = None,
) -> "tf.data.Dataset":
    """Batches to evaluate on: every token of every document has weight 1 exactly once.

    A document is read in windows of `length` that begin `stride` apart. In each, only the targets
    that no window before had are counted; so all but those of a document's first window have at
    least `length - stride` tokens before them.

    Args:
        source: token shards.
        length: places in a row: the model's context.
        batch_size: rows in a batch; the last one is filled up with padding.
        stride: from 1 to `length`, by default half of it. A smaller one gives each token more
            context, hence a better score, and takes `length / stride` times the work.
        start_id: as in `packed`.

    Returns:
        A dataset like that of `packed`, once through; the order of documents is not kept.

    Raises:
        ValueError: if the length or the batch size is below 1, or the stride not within the length.

    >>> source = rows.TokensInMemory([[1, 2, 3, 4, 0]], eos_id=0)
    >>> for inputs, targets, weights in evaluation_rows(source, length=4, batch_size=2, stride=2):
    ...     print(targets.numpy().tolist(), weights.numpy().tolist())
    [[1, 2, 3, 4], [3, 4, 0, 0]] [[1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 1.0, 0.0]]
    """
    rows.check_positive(length=length, batch_size=batch_size)
    stride = -(-length // 2) if stride is None else stride
    if not 1 <= stride <= length:
        raise ValueError(f"stride must be between 1 and the length {length}, and was {stride}.")
    start_id = source.eos_id if start_id is None else start_id
    pieces = rows.window_pieces(source, length, stride)

    def batch(number: int) -> tuple[np.ndarray, ...]:
        chosen = np.arange(number * batch_size, min((number + 1) * batch_size, pieces.rows))
        return rows.make_batch(pieces, chosen, source, length, batch_size, start_id)

    return rows.as_dataset(batch, -(-pieces.rows // batch_size), length, batch_size)
