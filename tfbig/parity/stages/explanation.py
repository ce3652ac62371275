"""What was found in a step, and what the stages share."""

import dataclasses

import numpy as np

from tfbig.parity.causes.row import Cause, Row, found
from tfbig.parity.facts import Part, Step
from tfbig.parity.replay import Forward


@dataclasses.dataclass
class Explanation:
    """What was found in a step.

    Attributes:
        causes: those that reproduce the loop's numbers.
        unexplained: stages that differ for no reason that was found.
        notes: what makes no difference here, and may elsewhere.
        tried: the ids of the rows that do not explain them.
        gradient_differs: whether the gradient is not `fit`'s.
    """

    causes: list[Cause] = dataclasses.field(default_factory=list)
    unexplained: list[str] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)
    tried: list[str] = dataclasses.field(default_factory=list)
    gradient_differs: bool = False

    def give_up(self, said: str, *tried: Row) -> None:
        """Notes a stage that differs, and the rows that were tried on it in vain."""
        self.unexplained.append(said)
        self.tried += [row.id for row in tried if row.id not in self.tried]

    def add(self, step: Step, row: Row, evidence: str, where: str | None, mend: str = "") -> None:
        """Adds a cause, once."""
        if all(cause.id != row.id for cause in self.causes):
            cause = found(row, evidence, where, mend or None)
            self.causes.append(dataclasses.replace(cause, step=step.number))


@dataclasses.dataclass
class PartResult:
    """What was found of one gradient of the loop.

    Attributes:
        factors: by which the loss of each head is multiplied; `None` where it is unknown.
        weights: of the heads in the loss.
        penalties: how often each entry of `model.losses` is in the loss.
        raw: what the tape returned, in the order of the model's variables.
        replay: of the forward pass.
    """

    factors: list[float] | None
    weights: list[float]
    penalties: list[float | None]
    raw: list[np.ndarray | None]
    replay: Forward | None


def near(a: float, b: float, tolerance: float = 1e-3) -> bool:
    """Whether a is b, relative to b."""
    return abs(a - b) <= tolerance * abs(b)


def between(part: Part) -> str | None:
    """The lines from the forward pass to the tape's gradient: the loss is there."""
    begin, end = part.forwards[0].at, part.gradient.at
    if begin is None or end is None or begin == end:
        return begin
    (file, first), (other, last) = begin.rsplit(":", 1), end.rsplit(":", 1)
    return f"{file}:{first}-{last}" if file == other and int(first) < int(last) else end
