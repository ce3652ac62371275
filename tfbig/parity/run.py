"""Runs a loop under observation, step by step, and cuts a whole training into its steps."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfbig.parity import state as states
from tfbig.parity.facts import Batch, Step
from tfbig.parity.observe import (
    Apply,
    Event,
    Forward,
    Observer,
    TapeGradient,
    is_users,
    observing,
)

_MODEL_NAMES = {"model", "net", "network", "self", "m"}


class LoopError(ValueError):
    """The loop under diagnosis cannot be run; the message says what to do."""


def caller(loop: Callable) -> Callable[[keras.Model, Batch], Any]:
    """How a loop is called: `(model, batch) -> what the loop returns`.

    A loop takes `(model, x, y, sample_weight)`, or the first three; without a model (it has it from
    outside) `(x, y, sample_weight)`, `(x, y)`, or one batch `(x, y)` or `(x, y, sample_weight)`.
    The first argument is the model if it is called so, or if there are four.

    Raises:
        LoopError: for a loop that takes something else.
    """
    function = getattr(loop, "python_function", loop)
    parameters = [
        p
        for p in inspect.signature(function).parameters.values()
        if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) and p.default is p.empty
    ]
    if any(p.kind is p.VAR_POSITIONAL for p in inspect.signature(function).parameters.values()):
        return lambda model, batch: loop(model, batch.x, batch.y, batch.sample_weight)
    names = [p.name for p in parameters]
    takes_weight = any(
        p.kind is p.POSITIONAL_OR_KEYWORD
        and p.default is not p.empty
        and ("weight" in p.name or p.name in ("w", "sw"))
        for p in inspect.signature(function).parameters.values()
    )
    takes_model = bool(names) and (names[0] in _MODEL_NAMES or len(names) == 4)
    rest = len(names) - takes_model
    if rest not in (1, 2, 3):
        raise LoopError(
            f"A loop takes (model, x, y, sample_weight), and this one takes ({', '.join(names)}). "
            f"Wrap it: loop=lambda model, x, y, sample_weight: ..."
        )

    def call(model: keras.Model, batch: Batch) -> Any:
        given = (batch.x, batch.y, batch.sample_weight)
        if rest == 1 and batch.y is not None:
            last = given if batch.sample_weight is not None else given[:2]
            arguments: tuple = (last,)
        elif rest == 2 and takes_weight and batch.sample_weight is not None:
            arguments = given
        else:
            arguments = given[:rest]
        return loop(model, *arguments) if takes_model else loop(*arguments)

    return call


def steps(
    model: keras.Model,
    loop: Callable[[keras.Model, Batch], Any],
    batch: Batch,
    count: int,
    tolerance: float,
) -> tuple[list[Step], list[Any], Observer]:
    """Runs a loop on one batch for some steps, from the model's state.

    Returns:
        The steps, what the loop returned in each, and the observer.

    Raises:
        LoopError: if the loop raises.
    """
    found, returned = [], []
    with observing(model) as seen:
        for number in range(1, count + 1):
            begin, start = states.take(model), len(seen.events)
            try:
                returned.append(loop(model, batch))
            except Exception as error:
                seen.restore_own_optimizers()
                raise _raised(error, f"in step {number}") from error
            end = states.take(model)
            events = list(seen.events[start:])
            found.append(Step(model, batch, events, begin, end, (), tolerance, number))
    return found, returned, seen


def _raised(error: Exception, when: str) -> LoopError:
    frame, where = error.__traceback__, None
    while frame is not None:  # the last frame that is nobody's library
        name = frame.tb_frame.f_code.co_filename
        if is_users(name):
            where = f"{name}:{frame.tb_lineno}"
        frame = frame.tb_next
    return LoopError(
        f"The loop raised {type(error).__name__} {when}{f' ({where})' if where else ''}: {error}\n"
        f"A loop is run eagerly, with tensors; it gets the model first if it has four arguments or "
        f"its first is called model. Mend this first, then diagnose again."
    )


def training(
    model: keras.Model,
    train: Callable,
    data: Batch,
    given: tuple,
    epochs: int,
    tolerance: float,
    drawn: bool,
) -> tuple[list[tuple[Step, tuple[int, ...] | None]], Any, Observer]:
    """Runs a whole training under observation, and cuts it into steps.

    Args:
        model: from whose state it starts.
        train: `(model, x, y, epochs) -> logs`.
        data: all the examples.
        given: `(x, y)` as `train` is to get them.
        epochs: how many.
        tolerance: see `Step`.
        drawn: whether the data were drawn from a dataset, which may draw others the next time.

    Returns:
        The steps, each with the numbers of its rows in the data (`None` where they are not in it);
        what `train` returned; the observer.

    Raises:
        LoopError: if it raises.
    """
    start = states.take(model)
    with observing(model) as seen:
        try:
            returned = train(model, *given, epochs)
        except Exception as error:
            seen.restore_own_optimizers()
            raise _raised(error, "in training") from error
        end = states.take(model)
    pieces = _cut(seen.events)
    found: list[tuple[Step, tuple[int, ...] | None]] = []
    rows_of, offset = _Rows(data), 0
    begins = [_first(piece).before if i else start for i, piece in enumerate(pieces)]
    for number, (piece, begin) in enumerate(zip(pieces, begins), start=1):
        after = begins[number] if number < len(begins) else end
        used = [e for e in piece if isinstance(e, Forward) and e.used]
        rows = rows_of.find([f.x for f in used], offset)
        if rows is None:  # scaled or augmented: in the order of the data, if they are in order
            size = min(len(data), sum(states.size(f.x) for f in used) or len(data))
            batch = data.rows((offset + np.arange(size)) % len(data))
            offset = (offset + size) % len(data)
        else:
            batch = data.rows(np.array(rows))
            offset = (rows[-1] + 1) % len(data)
        if not seen.fresh(piece):
            break  # a long training: its beginning is judged
        known = rows is not None or not (rows_of.ambiguous or drawn)
        step = Step(model, batch, piece, begin, after, (), tolerance, number, known)
        found.append((step, rows))
    return found, returned, seen


def _first(piece: Sequence[Event]) -> Forward:
    return next(e for e in piece if isinstance(e, Forward))


def _cut(events: Sequence[Event]) -> list[list[Event]]:
    """The events of each step: a step begins with the first taped call after an update."""
    applied = any(isinstance(e, Apply) for e in events)
    pieces: list[list[Event]] = []
    done = True
    for event in events:
        if isinstance(event, Forward) and event.taped and done:
            pieces.append([])
            done = False
        if not pieces:
            continue  # a call before the first step: building, a look at the outputs
        pieces[-1].append(event)
        if isinstance(event, Apply if applied else TapeGradient):
            done = True
    return [p for p in pieces if any(isinstance(e, TapeGradient) for e in p)]


class _Rows:
    """Finds the rows of a batch in the data: where they are next in order, else by their inputs."""

    def __init__(self, data: Batch) -> None:
        self._keys = _keys(data.x)
        self._places = {key: i for i, key in enumerate(self._keys)}

    @property
    def ambiguous(self) -> bool:
        """Whether some rows have the same inputs: which of them was meant cannot be told."""
        return len(self._places) < len(self._keys)

    def find(self, inputs: Sequence[Any], offset: int) -> tuple[int, ...] | None:
        keys = [key for x in inputs for key in _keys(x)]
        for begin in (offset, 0):
            in_order = tuple((begin + i) % len(self._keys) for i in range(len(keys)))
            if keys and keys == [self._keys[i] for i in in_order]:
                return in_order
        if self.ambiguous or not all(key in self._places for key in keys):
            return None
        return tuple(self._places[key] for key in keys) or None


def _keys(x: Any) -> list[bytes]:
    leaves = [states.array(leaf) for leaf in keras.tree.flatten(x) if leaf is not None]
    return [
        b"|".join(np.ascontiguousarray(leaf[i]).tobytes() for leaf in leaves)
        for i in range(len(leaves[0]))
    ]


def epochs_of(rows: Sequence[tuple[int, ...]], count: int) -> list[list[tuple[int, ...]]]:
    """Cuts the steps into epochs: into equal ones, or where rows come again."""
    if not rows:
        return []
    if len(rows) % count == 0:
        size = len(rows) // count
        return [list(rows[i * size : (i + 1) * size]) for i in range(count)]
    epochs: list[list[tuple[int, ...]]] = []
    seen: set[int] = set()
    for step in rows:
        if not epochs or seen & set(step):
            epochs.append([])
            seen = set()
        epochs[-1].append(step)
        seen |= set(step)
    return epochs


def to_arrays(dataset: tf.data.Dataset) -> tuple[Any, Any, Any]:
    """All the examples of a dataset of batches, in its order.

    Raises:
        ValueError: for a dataset without end.
    """
    if dataset.cardinality() == tf.data.INFINITE_CARDINALITY:
        raise ValueError("The dataset has no end: take a part of it, dataset.take(batches).")
    batches = [keras.utils.unpack_x_y_sample_weight(b) for b in dataset]
    return tuple(
        None
        if parts[0] is None
        else keras.tree.map_structure(lambda *leaves: np.concatenate(leaves), *parts)
        for parts in ([b[i] for b in batches] for i in range(3))
    )  # type: ignore[return-value]
