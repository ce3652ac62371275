"""Causes that show over epochs only: which examples, in which order, how many steps.

A hypothesis takes `Visits`, the rows of the data that each step of the loop saw, and returns the
evidence or `None`.
"""

import dataclasses

import numpy as np

from tfbig.parity.causes.row import EPOCH, HARMLESS, Row


@dataclasses.dataclass(frozen=True)
class Visits:
    """Which rows of the data the loop saw.

    Attributes:
        epochs: for each epoch for each step the numbers of the rows.
        rows: of the data.
        batch_size: of `fit`.
        shuffle: whether `fit` shuffles.
    """

    epochs: tuple[tuple[tuple[int, ...], ...], ...]
    rows: int
    batch_size: int
    shuffle: bool

    def order(self, epoch: int) -> np.ndarray:
        """The rows of an epoch, one after the other."""
        return np.array([row for step in self.epochs[epoch] for row in step])


def not_shuffled(visits: Visits) -> str | None:
    """D44: in the order of the data, or nearly."""
    if not visits.shuffle or visits.rows < 8:
        return None
    for epoch in range(len(visits.epochs)):
        order = visits.order(epoch)
        if len(order) < visits.rows // 2:
            return None
        # How far the rows are from their places: n / 3 on the average after a full shuffle.
        distance = float(np.abs(order - np.arange(len(order))).mean())
        if distance > visits.rows / 6:
            return None
    if distance == 0:
        return "the rows come in the order of the data in every epoch; fit shuffles them"
    return (
        f"the rows come {distance:.1f} places from where they are in the data on the average, "
        f"after a full shuffle it is {visits.rows / 3:.1f}: the shuffle buffer is too small"
    )


def shuffled(visits: Visits) -> str | None:
    """D44, the other way: fit does not shuffle."""
    if visits.shuffle or all(
        np.array_equal(np.sort(o), o) for o in map(visits.order, range(len(visits.epochs)))
    ):
        return None
    return "the loop shuffles, and fit was told not to (shuffle=False)"


def last_batch_dropped(visits: Visits) -> str | None:
    """D45: floor(n / batch) steps for ceil."""
    rest = visits.rows % visits.batch_size
    for epoch in range(len(visits.epochs)):
        seen = len(visits.order(epoch))
        if rest and seen == visits.rows - rest:
            return (
                f"{seen} of {visits.rows} rows are seen in an epoch: the last batch, of {rest}, is "
                f"dropped"
            )
    return None


def other_batches(visits: Visits) -> str | None:
    """D45: batches of another size."""
    sizes = [len(step) for step in visits.epochs[0]]
    if sizes and sizes[0] != min(visits.batch_size, visits.rows):
        return f"batches of {sizes[0]} rows, and fit has batches of {visits.batch_size}"
    return None


def same_order(visits: Visits) -> str | None:
    """D46: shuffled once."""
    if not visits.shuffle or len(visits.epochs) < 2:
        return None
    orders = [visits.order(epoch) for epoch in range(len(visits.epochs))]
    if np.array_equal(orders[0], np.sort(orders[0])):
        return None
    if all(np.array_equal(orders[0], order) for order in orders[1:]):
        return f"the rows come in one order in all of {len(orders)} epochs"
    return None


D44 = Row(
    "D44",
    "the examples are not shuffled, or in too small a buffer",
    "dataset.shuffle(number_of_examples), before batch",
    not_shuffled,
    sees=EPOCH,
    threads=("tensorflow#33898", "tensorflow#41957"),
)
D44_SHUFFLED = dataclasses.replace(D44, hypothesis=shuffled, mend="fit(..., shuffle=True)")
D45 = Row(
    "D45",
    "the last batch of an epoch is dropped (or kept), or batches have another size",
    "dataset.batch(batch_size), without drop_remainder=True",
    last_batch_dropped,
    sees=EPOCH,
    threads=("tensorflow#41957",),
)
D45_SIZE = dataclasses.replace(D45, hypothesis=other_batches, mend="the same batch_size for both")
D46 = Row(
    "D46",
    "the order of the examples is the same in every epoch",
    "draw a new order in each epoch: rng.permutation(n) inside the loop over epochs",
    same_order,
    sees=EPOCH,
    threads=("models#6980",),
)
D66 = Row(
    "D66",
    "fit takes one step more in each epoch, without data (V26): the loop is right",
    "with tfbig.compat.fixed('V26'): model.fit(...), or dataset.apply(assert_cardinality(n))",
    sees=EPOCH,
)
D52 = Row(
    "D52",
    "XLA, TF32 or another order of summation: rounding",
    "nothing: compare with a tolerance",
    kind=HARMLESS,
)
D53 = Row(
    "D53",
    "another kernel of a recurrent layer (cuDNN or not): rounding",
    "nothing, or use_cudnn=False in both",
    kind=HARMLESS,
)
EPOCHS = (D44, D44_SHUFFLED, D45, D45_SIZE, D46)
ROWS = (D44, D45, D46, D66, D52, D53)
