"""Causes in what is reported: losses and metrics that are right and mean something else.

A hypothesis takes the `Losses` of a step (or of an epoch) and returns the value that the loop would
have reported, or `None`.
"""

import dataclasses
from collections.abc import Callable

from tfbig.parity.causes.row import EPOCH, Row


@dataclasses.dataclass(frozen=True)
class Losses:
    """The losses of an epoch so far.

    Attributes:
        sizes: the number of examples in each batch.
        totals: the loss of each batch, penalties included, before its update.
        penalties: the sum of `model.losses` in each.
        after: the loss after the last update, all examples at once or in batches (of 32, as
            `evaluate` takes them, and of `fit`'s size): with a mask these are different means.
    """

    sizes: tuple[int, ...]
    totals: tuple[float, ...]
    penalties: tuple[float, ...]
    after: tuple[float, ...] = ()

    def mean(self, values: tuple[float, ...] | None = None) -> float:
        """What `fit` reports: the mean over the examples."""
        values = self.totals if values is None else values
        return sum(v * n for v, n in zip(values, self.sizes)) / sum(self.sizes)


def last_batch(losses: Losses) -> float | None:
    """D49"""
    return losses.totals[-1]


def after_the_update(which: int) -> Callable[[Losses], float | None]:
    """D48, by one of the means of `Losses.after`."""
    return lambda losses: losses.after[which] if which < len(losses.after) else None


def plain_mean(losses: Losses) -> float | None:
    """D50"""
    return sum(losses.totals) / len(losses.totals)


def without_penalties(losses: Losses) -> float | None:
    """D51"""
    return losses.mean(tuple(t - p for t, p in zip(losses.totals, losses.penalties)))


def last_without_penalties(losses: Losses) -> float | None:
    """D51 with D49"""
    return losses.totals[-1] - losses.penalties[-1]


D49 = Row(
    "D49",
    "the loss that is reported is that of the last batch; fit's is the mean over the epoch",
    "mean = keras.metrics.Mean(); mean.update_state(loss, sample_weight=len(x)); mean.result()",
    last_batch,
    threads=("recommenders#585", "keras-io#48"),
)
D48 = Row(
    "D48",
    "the loss that is reported is that after the update; fit's is the mean of those before",
    "report the loss that was differentiated; compare with model.evaluate after training",
    after_the_update(0),
    threads=("tensorflow#29964", "keras#15760", "tensorflow#36192"),
)
D50 = Row(
    "D50",
    "the loss of the epoch is a plain mean over batches of unequal size",
    "mean.update_state(loss, sample_weight=len(x))",
    plain_mean,
    sees=EPOCH,
)
D51 = Row(
    "D51",
    "the loss that is reported leaves out the regularisation, which is in fit's",
    "report loss + sum(model.losses)",
    without_penalties,
)
ROWS = (D49, D48, D50, D51)
# Which rows, alone or together, make which value of what `fit` reports; in the order of trial.
REPORTS: tuple[tuple[tuple[Row, ...], Callable[[Losses], float | None]], ...] = (
    ((), Losses.mean),
    ((D49,), last_batch),
    ((D50,), plain_mean),
    ((D51,), without_penalties),
    ((D51, D49), last_without_penalties),
    *(((D48,), after_the_update(which)) for which in range(3)),
)
