"""What is known of one step of a loop: what it was given, what it did, and what came of it."""

import dataclasses
from typing import Any

import keras
import numpy as np

from tfbig.parity import state as states
from tfbig.parity.arrays import total
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
        batches: the rows that each forward pass saw.
        share: their part of the batch.
        same_rows: whether the rows could be told: the model was called with them as they are.
    """

    forwards: list[Forward]
    gradient: TapeGradient
    batch: Batch
    batches: list[Batch]
    share: float
    same_rows: bool

    @property
    def repeated(self) -> bool:
        """Whether the model was called with the same inputs more than once."""
        first, *others = self.forwards
        return any(same_inputs(first.x, other.x) for other in others)


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
        known: whether the rows of the batch are known, and with them the labels.
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
    known: bool = True
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
        groups: list[tuple[list[Forward], list[TapeGradient]]] = []
        for gradient in self.gradients:
            used = gradient.used()
            if not used:
                continue
            group = next((g for g in groups if any(f in g[0] for f in used)), None)
            if group is None:
                groups.append((list(used), [gradient]))
            else:
                group[0].extend(f for f in used if f not in group[0])
                group[1].append(gradient)
        whole = len(self.batch)
        sizes = [_size([states.size(f.x) for f in forwards], whole) for forwards, _ in groups]
        parts, offset = [], 0
        for (forwards, gradients), size in zip(groups, sizes):
            begin = 0
            if sum(sizes) == whole:
                begin, offset = offset, offset + size
            rows = np.arange(begin, min(begin + size, whole))
            batch = self.batch if len(rows) == whole else self.batch.rows(rows)
            batches = _split(batch, [states.size(f.x) for f in forwards])
            same = all(same_inputs(f.x, b.x) for f, b in zip(forwards, batches))
            share = len(rows) / whole
            parts.append(Part(forwards, merged(gradients), batch, batches, share, same))
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


def _size(sizes: list[int], total: int) -> int:
    """How many rows of the batch some forward passes saw: all, or a part each."""
    return total if max(sizes) >= total else min(sum(sizes), total)


def _split(batch: Batch, sizes: list[int]) -> list[Batch]:
    """The rows of each of some forward passes: one after the other, or all the same."""
    if len(sizes) == 1 or sum(sizes) != len(batch):
        return [batch] * len(sizes)
    ends = np.cumsum(sizes)
    return [batch.rows(np.arange(end - size, end)) for size, end in zip(sizes, ends)]


def merged(gradients: list[TapeGradient]) -> TapeGradient:
    """Several gradients of the same forward passes as one: of other variables, or of parts of the
    loss, which add up."""
    first = gradients[0]
    if len(gradients) == 1:
        return first
    sources: list[Any] = []
    values: list[np.ndarray | None] = []
    for gradient in gradients:
        for source, value in zip(gradient.sources, gradient.values):
            place = next((i for i, s in enumerate(sources) if s is source), None)
            if place is None:
                sources.append(source)
                values.append(value)
            else:
                values[place] = total([values[place], value])
    asked = sum(len(g.sources) for g in gradients)
    forwards = list({id(f): f for g in gradients for f in g.forwards}.values())
    deltas = []
    for forward in forwards:
        columns = [g.deltas_of(forward) for g in gradients if forward in g.forwards]
        # Of other variables: one loss, asked several times. Of the same: parts of the loss.
        once = asked == len(sources)
        deltas.append(columns[0] if once else [total(column) for column in zip(*columns)])
    return dataclasses.replace(
        first, sources=sources, values=values, forwards=forwards, deltas=deltas
    )


def same_inputs(a: Any, b: Any) -> bool:
    """Whether two inputs, or nests of such, are equal."""
    a, b = keras.tree.flatten(a), keras.tree.flatten(b)
    return len(a) == len(b) and all(
        u is v
        or (u is not None and v is not None and np.array_equal(states.array(u), states.array(v)))
        for u, v in zip(a, b)
    )
