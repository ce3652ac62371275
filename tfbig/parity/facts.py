"""What is known of one step of a loop: what it was given, what it did, and what came of it."""

import dataclasses
from typing import Any

import keras
import numpy as np

from tfbig.parity import state as states
from tfbig.parity.observe import Apply, Event, Forward, TapeGradient


@dataclasses.dataclass(frozen=True)
class Batch:
    """What a step is given.

    Attributes:
        x, y: tensors or nests of them.
        sample_weight: as the loop gets it, class weights included.
        own_weight: the sample weights without class weights.
    """

    x: Any
    y: Any
    sample_weight: Any
    own_weight: Any

    @property
    def class_weighted(self) -> bool:
        """Whether class weights are in the sample weights."""
        return self.sample_weight is not self.own_weight

    def __len__(self) -> int:
        return states.size(self.x)

    def rows(self, rows: Any) -> "Batch":
        """Some rows of the batch."""

        def of(nest: Any) -> Any:
            return keras.tree.map_structure(
                lambda leaf: None if leaf is None else keras.ops.take(leaf, rows, axis=0), nest
            )

        weight, own = of(self.sample_weight), of(self.own_weight)
        return Batch(of(self.x), of(self.y), weight, own if self.class_weighted else weight)


@dataclasses.dataclass(frozen=True)
class Part:
    """One gradient of the loop, and the forward passes that it came from.

    Most loops have one part; a loop that accumulates has one for each micro-batch, a loop under a
    strategy one for each replica.

    Attributes:
        forwards: that the loss used; mostly one.
        gradient: what the tape returned.
        batch: the rows of the batch that it saw.
        share: their part of the batch.
        same_rows: whether the rows could be told: the model was called with them as they are.
    """

    forwards: list[Forward]
    gradient: TapeGradient
    batch: Batch
    share: float
    same_rows: bool

    def deltas_of(self, forward: Forward) -> list[np.ndarray | None]:
        """The gradients of a forward pass's outputs."""
        pairs = zip(self.gradient.forwards, self.gradient.deltas)
        return next(deltas for seen, deltas in pairs if seen is forward)


@dataclasses.dataclass(frozen=True)
class Step:
    """One step of the loop.

    Attributes:
        model: the model.
        batch: what the loop was given.
        events: what it did, in order.
        begin, end: the model's state before and after.
        slots: of the model's optimizer if `fit` had run until here.
        tolerance: the relative difference above which numbers differ: ten times the noise.
        number: of the step, counted from 1.
        constant_norm: the norm of what is applied, where it is the same in every step.
    """

    model: keras.Model
    batch: Batch
    events: list[Event]
    begin: states.State
    end: states.State
    slots: tuple[np.ndarray, ...]
    tolerance: float
    number: int = 1
    constant_norm: float | None = None

    @property
    def forwards(self) -> list[Forward]:
        """All calls of the model."""
        return [e for e in self.events if isinstance(e, Forward)]

    @property
    def gradients(self) -> list[TapeGradient]:
        """All gradients that the loop took by weights."""
        return [e for e in self.events if isinstance(e, TapeGradient)]

    @property
    def applies(self) -> list[Apply]:
        """All updates by an optimizer."""
        return [e for e in self.events if isinstance(e, Apply)]

    @property
    def replicas(self) -> int:
        """On how many replicas the loop ran."""
        return 1 + max((e.replica for e in self.events), default=0)

    @property
    def before_fit(self) -> states.State:
        """The state from which the model's optimizer is to make this update: the weights at the
        moment of the loop's, the slots as `fit` would have them."""
        used = [f for f in self.forwards if f.used]
        moment = (*(a.before for a in self.applies[:1]), *(f.before for f in used[:1]), self.begin)
        return states.State(moment[0].values, self.slots)

    def moved(self) -> list[np.ndarray]:
        """How far the loop's update moved each weight, in float64."""
        begin, end = (states.trainable(self.model, s) for s in (self.before_fit, self.end))
        return [b.astype("float64") - a.astype("float64") for a, b in zip(begin, end)]

    def parts(self) -> list[Part]:
        """The gradients of the step with the rows of the batch from which they come."""
        gradients = [g for g in self.gradients if any(f.used for f in g.forwards)]
        sizes = [_rows(g) for g in gradients]
        total = len(self.batch)
        parts, offset = [], 0
        for gradient, size in zip(gradients, sizes):
            forwards = [
                f
                for f, deltas in zip(gradient.forwards, gradient.deltas)
                if any(d is not None for d in deltas)
            ]
            if size == total or sum(sizes) != total:
                rows = np.arange(total)
            else:
                rows = np.arange(offset, offset + size)
                offset += size
            batch = self.batch if len(rows) == total else self.batch.rows(rows)
            same = all(_same(f.x, batch.x) for f in forwards)
            parts.append(Part(forwards, gradient, batch, len(rows) / total, same))
        return parts

    def index(self, variable: Any) -> int | None:
        """Which of the model's trainable variables is meant, by the Keras or the TensorFlow one."""
        for i, v in enumerate(self.model.trainable_variables):
            if variable is v or variable is v.value:
                return i
        return None

    def by_variable(self, values: list, variables: list) -> list[np.ndarray | None]:
        """Values in the order of the model's trainable variables."""
        out: list[np.ndarray | None] = [None] * len(self.model.trainable_variables)
        for value, variable in zip(values, variables):
            i = self.index(variable)
            if i is not None and value is not None:
                out[i] = value
        return out


def _rows(gradient: TapeGradient) -> int:
    forward = next(
        f
        for f, deltas in zip(gradient.forwards, gradient.deltas)
        if any(d is not None for d in deltas)
    )
    return states.size(forward.x)


def _same(a: Any, b: Any) -> bool:
    a, b = keras.tree.flatten(a), keras.tree.flatten(b)
    return len(a) == len(b) and all(
        u is v or (u is not None and v is not None and np.array_equal(u, v)) for u, v in zip(a, b)
    )
