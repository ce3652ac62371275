"""Rows of token ids: where each piece of a document lies, and the batches made from that.

A row has `length` places. At each place stands an input token and, as its target, the token that
follows it in the same document:

    inputs     <end>  The   cat   <end>  A     dog        before a document's first token stands
    targets    The    cat   <end> A      dog   <end>      the start token, by default the end token
    segments   1      1     1     2      2     2
    positions  0      1     2     0      1     2

A model that looks only within equal `segment_ids` sees each document alone (Krell et al.,
"Efficient Sequence Packing without Cross-contamination", 2021). A piece of a document lies in one
row, and its positions begin at 0.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    import tensorflow as tf


class TokenSource(Protocol):
    """What can be packed: `TokenShards`, or `TokensInMemory`, or anything else with these."""

    eos_id: int
    starts: np.ndarray
    sizes: np.ndarray

    def gather(self, index: np.ndarray) -> np.ndarray:
        """The tokens at these places: int32, of the shape of `index`."""


class TokensInMemory:
    """Documents of token ids that fit in memory, as a `TokenSource`.

    Args:
        documents: the ids of each; its end token, if it has one, is among them.
        eos_id: the end token.

    >>> source = TokensInMemory([[5, 6, 0], [7, 0]], eos_id=0)
    >>> source.starts.tolist(), source.gather(np.array([1, 3])).tolist()
    ([0, 3], [6, 7])
    """

    def __init__(self, documents: Sequence[Sequence[int] | np.ndarray], eos_id: int) -> None:
        self.eos_id = eos_id
        self.sizes = np.array([len(ids) for ids in documents], np.int64)
        self.starts = np.cumsum(self.sizes) - self.sizes
        self._tokens = np.concatenate([np.array(ids, np.int32) for ids in documents])

    def gather(self, index: np.ndarray) -> np.ndarray:
        """The tokens at these places: int32, of the shape of `index`."""
        return self._tokens[index]


@dataclasses.dataclass(frozen=True)
class Pieces:
    """Parts of documents, in the order of their places; each lies in one row.

    Attributes:
        places: where each begins, counted through all rows: row * length + column. A row that has
            anything has a piece at its column 0.
        sources: where its first target is among the tokens of the corpus.
        sizes: how many targets it has.
        known: how many of its first targets are only context, with weight 0.
        is_start: whether its first target is the first token of its document.
        rows: how many rows there are.
    """

    places: np.ndarray
    sources: np.ndarray
    sizes: np.ndarray
    known: np.ndarray
    is_start: np.ndarray
    rows: int


def stream_pieces(source: TokenSource, order: np.ndarray, length: int) -> Pieces:
    """The documents one after the other in this order, cut where rows end.

    >>> pieces = stream_pieces(TokensInMemory([[5, 6, 0], [7, 0]], 0), np.array([1, 0]), length=4)
    >>> pieces.places.tolist(), pieces.sources.tolist(), pieces.sizes.tolist(), pieces.rows
    ([0, 2, 4], [3, 0, 2], [2, 2, 1], 2)
    """
    ends = np.cumsum(source.sizes[order])
    begins = ends - source.sizes[order]
    places = np.union1d(begins, np.arange(0, ends[-1], length))
    document = np.searchsorted(begins, places, side="right") - 1
    return Pieces(
        places=places,
        sources=source.starts[order][document] + places - begins[document],
        sizes=np.diff(places, append=ends[-1]),
        known=np.zeros_like(places),
        is_start=places == begins[document],
        rows=-(-int(ends[-1]) // length),
    )


def window_pieces(source: TokenSource, length: int, stride: int) -> Pieces:
    """Overlapping windows over each document, long ones first; several short ones share a row.

    >>> pieces = window_pieces(TokensInMemory([[5, 0], [1, 2, 3, 4, 0]], 0), length=4, stride=2)
    >>> pieces.sources.tolist(), pieces.sizes.tolist(), pieces.known.tolist()
    ([2, 4, 0], [4, 3, 2], [0, 2, 0])
    """
    counts = 1 + -(-np.maximum(source.sizes - length, 0) // stride)
    document = np.repeat(np.arange(len(counts)), counts)
    window = np.arange(len(document)) - np.repeat(np.cumsum(counts) - counts, counts)
    sizes = np.minimum(length, source.sizes[document] - window * stride)
    order = np.argsort(-sizes, kind="stable")
    places, rows = whole_places(sizes[order], length)
    return Pieces(
        places=places,
        sources=(source.starts[document] + window * stride)[order],
        sizes=sizes[order],
        known=np.where(window == 0, 0, length - stride)[order],
        is_start=(window == 0)[order],
        rows=rows,
    )


def whole_places(sizes: np.ndarray, length: int) -> tuple[np.ndarray, int]:
    """Places for pieces that are not to be cut, each in the open row or else in a new one; rows.

    >>> whole_places(np.array([3, 3, 2, 2]), length=5)
    (array([ 0,  5,  8, 10]), 3)
    """
    places = []
    end = 0
    for size in sizes.tolist():
        if end % length + size > length:
            end = -(-end // length) * length
        places.append(end)
        end += size
    return np.array(places, np.int64), -(-end // length)


def make_batch(
    pieces: Pieces,
    rows: np.ndarray,
    source: TokenSource,
    length: int,
    batch_size: int,
    start_id: int,
) -> tuple[np.ndarray, ...]:
    """A batch of these rows, by vectorised NumPy.

    Args:
        pieces: where everything lies.
        rows: numbers of rows, at most `batch_size`; what is missing is padding.
        source: the tokens.
        length: places in a row.
        batch_size: rows in the batch.
        start_id: the input before the first token of a document.

    Returns:
        `token_ids, segment_ids, positions, targets` (int32), `weights` (float32), and `sources`,
        the place of each target in the corpus (0 where there is padding): each `(batch, length)`.

    >>> source = TokensInMemory([[5, 6, 0], [7, 0]], eos_id=0)
    >>> pieces = stream_pieces(source, np.array([0, 1]), length=4)
    >>> batch = make_batch(pieces, np.array([0, 1]), source, length=4, batch_size=2, start_id=0)
    >>> ids, segments, _, targets, weights, _ = batch
    >>> ids.tolist(), targets.tolist()
    ([[0, 5, 6, 0], [7, 0, 0, 0]], [[5, 6, 0, 7], [0, 0, 0, 0]])
    >>> segments.tolist(), weights.tolist()
    ([[1, 1, 1, 2], [1, 0, 0, 0]], [[1.0, 1.0, 1.0, 1.0], [1.0, 0.0, 0.0, 0.0]])
    """
    first = np.full((batch_size, 1), pieces.rows * length)  # beyond the last row: padding
    first[: len(rows), 0] = rows * length
    place = first + np.arange(length)
    piece = np.searchsorted(pieces.places, place, side="right") - 1
    position = place - pieces.places[piece]
    is_real = position < pieces.sizes[piece]
    sources = np.where(is_real, pieces.sources[piece] + position, 0)
    token_ids = source.gather(np.maximum(sources - 1, 0))
    token_ids[pieces.is_start[piece] & (position == 0)] = start_id
    segments = piece - piece[:, :1] + 1
    integers = [token_ids, segments, position, source.gather(sources)]
    weights = is_real & (position >= pieces.known[piece])
    padded = (np.where(is_real, array, 0).astype(np.int32) for array in integers)
    return *padded, weights.astype(np.float32), sources


def as_dataset(
    batch: Callable[[int], tuple[np.ndarray, ...]], count: int | None, length: int, batch_size: int
) -> "tf.data.Dataset":
    """The `tf.data` pipeline of a function from a batch's number to its first five arrays.

    Args:
        batch: gives what `make_batch` gives, from the number alone.
        count: how many there are; None for no end.
        length: places in a row.
        batch_size: rows in a batch.

    Returns:
        A dataset of `(inputs, targets, weights)`, made in a thread beside the training step.
    """
    import tensorflow as tf

    kinds = [tf.int32] * 4 + [tf.float32]

    def load(number: tf.Tensor) -> Any:
        arrays = tf.numpy_function(lambda n: batch(int(n))[:5], [number], kinds, stateful=False)
        for array in arrays:
            array.set_shape((batch_size, length))
        token_ids, segment_ids, positions, targets, weights = arrays
        inputs = {"token_ids": token_ids, "segment_ids": segment_ids, "positions": positions}
        return inputs, targets, weights

    numbers = tf.data.Dataset.counter() if count is None else tf.data.Dataset.range(count)
    return numbers.map(load).prefetch(4)


def check_positive(**numbers: int | None) -> None:
    """Raises ValueError with the name of the first number that is given and below 1."""
    for name, number in numbers.items():
        if number is not None and number < 1:
            raise ValueError(f"{name} must be at least 1, and was {number}.")
