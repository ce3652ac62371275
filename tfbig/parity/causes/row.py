"""What a row of the catalogue is."""

import dataclasses
from collections.abc import Callable
from typing import Any

# Kinds.
FAULT = "a fault"
HARMLESS = "harmless"
LATER = "not to be met here yet"

# What sees it.
BATCH, EPOCH, REPLICAS = "batch", "epoch", "replicas"


@dataclasses.dataclass(frozen=True)
class Row:
    """One cause for which a loop differs from `fit`.

    Attributes:
        id: the catalogue's.
        title: the cause, in a line.
        mend: the remedy, in a line of code where there is one.
        hypothesis: the cause as code; what it takes and returns is told by the stage of the step
            that asks it (each file of this folder is a stage). `None` for a row that is found by
            what another row's code returns, or that cannot be met here.
        kind: a fault, harmless, or not to be met here yet.
        sees: what shows it: a batch, an epoch, replicas.
        threads: where users asked.
    """

    id: str
    title: str
    mend: str
    hypothesis: Callable[..., Any] | None = None
    kind: str = FAULT
    sees: str = BATCH
    threads: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Cause:
    """A cause that was found.

    Attributes:
        id: of the row in the catalogue.
        title: the cause, in a line.
        evidence: the number that shows it, in words.
        where: file and line of the loop, or `None` where it cannot be told.
        mend: the remedy.
        step: the first step in which it shows, counted from 1.
    """

    id: str
    title: str
    evidence: str
    where: str | None
    mend: str
    step: int = 1


def found(row: Row, evidence: str, where: str | None, mend: str | None = None) -> Cause:
    """The cause of a row, with its evidence."""
    return Cause(row.id, row.title, evidence, where, mend or row.mend)
