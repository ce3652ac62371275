"""Watches a loop at work: what it calls the model with, what its tapes return, what it applies.

The loop runs eagerly, also where it is a `tf.function` (nested ones too, traced before or not), so
everything it computes is a number, and each call has a line in the user's file. Nothing of the loop
changes: the tape is only asked for the gradients of the model's outputs besides, in the same call.
"""

import contextlib
import dataclasses
import functools
import inspect
import os
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import get_ident
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfbig.parity import state as states
from tfbig.training import anatomy, surgery

# Frames in these packages are never the user's.
_NOT_THE_USERS = tuple(
    str(Path(sys.modules[name].__file__ or "").parent) + os.sep
    for name in ("keras", "tensorflow", "tfbig")
)


MOST_STATES = 400  # kept of one run, so that a long training does not fill the memory


@dataclasses.dataclass(eq=False)
class Forward:
    """One call of the model.

    Attributes:
        x: what it was called with; a tensor or a nest.
        training: the flag it was called with, where its `call` takes one.
        outputs: the leaves of what came out.
        before: the model's state before the call.
        policies: of the layers, by name.
        taped: whether a tape was recording.
        at: file and line.
    """

    x: Any
    training: Any
    outputs: list[tf.Tensor]
    before: states.State
    policies: tuple[str, ...]
    taped: bool
    at: str | None
    replica: int
    used: bool = False


@dataclasses.dataclass(eq=False)
class TapeGradient:
    """One call of `tape.gradient` that asked for weights of the model, or for anything trained.

    Attributes:
        target: the loss, or its parts.
        sources: the variables.
        values: their gradients, dense; `None` where the loss does not reach.
        given: the same as the loop gets them.
        deltas: for each forward in `forwards` the gradients of its outputs (of the logits where
            Keras remembers them), `None` where the loss does not use it.
    """

    target: list[np.ndarray]
    sources: list[Any]
    values: list[np.ndarray | None]
    given: list[Any]
    forwards: list[Forward]
    deltas: list[list[np.ndarray | None]]
    at: str | None
    replica: int

    def used(self) -> list[Forward]:
        """The forward passes that the loss depends on."""
        pairs = zip(self.forwards, self.deltas)
        return [f for f, deltas in pairs if any(d is not None for d in deltas)]

    def deltas_of(self, forward: Forward) -> list[np.ndarray | None]:
        """The gradients of a forward pass's outputs."""
        pairs = zip(self.forwards, self.deltas)
        return next(deltas for seen, deltas in pairs if seen is forward)


@dataclasses.dataclass(eq=False)
class Apply:
    """One update by a Keras optimizer (not by one inside another).

    Attributes:
        gradients: as arrays, repeated rows summed.
        given: as the optimizer got them.
        scale: by which the optimizer divides them.
        before: the model's state before.
    """

    optimizer: keras.optimizers.Optimizer
    gradients: list[np.ndarray | None]
    given: list[Any]
    variables: list[Any]
    scale: float
    before: states.State
    at: str | None
    replica: int


Event = Forward | TapeGradient | Apply


class Observer:
    """What was seen, in order."""

    def __init__(self, model: keras.Model) -> None:
        self.model = model
        self.events: list[Event] = []
        # How deep each thread (each replica has one) stands in tapes, updates and calls.
        self.tapes: Counter[int] = Counter()
        self.applying: Counter[int] = Counter()
        self.calling: Counter[int] = Counter()
        # Optimizers of the loop's own, and the slots with which they began.
        self.own: dict[int, tuple[keras.optimizers.Optimizer, tuple[np.ndarray, ...]]] = {}

        self._taken: list[states.State] = []

    def of(self, kind: type) -> list:
        """The events of one kind."""
        return [event for event in self.events if isinstance(event, kind)]

    def take(self) -> states.State:
        """The model's state; after many steps the last one taken: each is a copy of all weights."""
        if len(self._taken) < MOST_STATES:
            self._taken.append(states.take(self.model))
        return self._taken[-1]

    def fresh(self, events: list[Event]) -> bool:
        """Whether each event has the state of its own moment, and not the last one taken."""
        states_ = [e.before for e in events if not isinstance(e, TapeGradient)]
        return len(self._taken) < MOST_STATES or all(s is not self._taken[-1] for s in states_)

    def restore_own_optimizers(self) -> None:
        """Puts the slots of the loop's own optimizers back."""
        for optimizer, slots in self.own.values():
            states.assign(optimizer.variables, slots)


def is_users(file: str) -> bool:
    """Whether a file is the user's, and not Keras's, TensorFlow's, ours or Python's."""
    if file.startswith((*_NOT_THE_USERS, "<frozen", "<string>")):
        return False
    return os.path.dirname(file) != os.path.dirname(contextlib.__file__)


def site() -> str | None:
    """File and line of the innermost frame that is the user's."""
    frame = inspect.currentframe()
    while frame is not None:
        name = frame.f_code.co_filename
        if is_users(name):
            if "ipykernel_" in name or name.startswith("<ipython"):
                return f"cell:{frame.f_lineno}"  # the name of its file is another in each run
            with contextlib.suppress(ValueError):
                name = os.path.relpath(name) if name.startswith(os.getcwd()) else name
            return f"{name}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]
    return None


@contextlib.contextmanager
def observing(model: keras.Model) -> Iterator[Observer]:
    """Watches everything that runs inside the `with` block; restores all at the end."""
    seen = Observer(model)
    eager = tf.config.functions_run_eagerly()
    with contextlib.ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", message="Even though the `tf.config.experimental_run")
        tf.config.run_functions_eagerly(True)
        stack.callback(tf.config.run_functions_eagerly, eager)
        stack.enter_context(_watching_calls(model, seen))
        stack.enter_context(_watching_tapes(seen))
        for cls in (keras.optimizers.Optimizer, keras.optimizers.LossScaleOptimizer):
            stack.enter_context(_watching_updates(cls, seen))
        yield seen


@contextlib.contextmanager
def _replaced(owner: Any, name: str, new: Callable) -> Iterator[None]:
    own = vars(owner).get(name)
    setattr(owner, name, new)
    try:
        yield
    finally:
        delattr(owner, name) if own is None else setattr(owner, name, own)


@contextlib.contextmanager
def _watching_calls(model: keras.Model, seen: Observer) -> Iterator[None]:
    original = keras.Layer.__call__

    @functools.wraps(original)
    def call(self: keras.Layer, *args: Any, **kwargs: Any) -> Any:
        if self is not model or seen.calling[get_ident()]:
            return original(self, *args, **kwargs)
        before, at = seen.take(), site()
        seen.calling[get_ident()] += 1
        try:
            output = original(self, *args, **kwargs)
        finally:
            seen.calling[get_ident()] -= 1
        leaves = [leaf for leaf in keras.tree.flatten(output) if tf.is_tensor(leaf)]
        if not any(isinstance(leaf, keras.KerasTensor) for leaf in keras.tree.flatten(output)):
            x = args[0] if args else kwargs.get("inputs", kwargs.get("x"))
            seen.events.append(
                Forward(
                    x,
                    kwargs.get("training"),
                    leaves,
                    before,
                    policies(model),
                    seen.tapes[get_ident()] > 0,
                    at,
                    _replica(),
                )
            )
        return output

    # On the class: before Keras casts the inputs, and past a `call` of the instance's own.
    with _replaced(keras.Layer, "__call__", call):
        yield


@contextlib.contextmanager
def _watching_tapes(seen: Observer) -> Iterator[None]:
    enter, leave, gradient = (
        tf.GradientTape.__enter__,
        tf.GradientTape.__exit__,
        tf.GradientTape.gradient,
    )

    def entered(tape: tf.GradientTape) -> tf.GradientTape:
        seen.tapes[get_ident()] += 1
        return enter(tape)

    def left(tape: tf.GradientTape, *args: Any) -> None:
        seen.tapes[get_ident()] -= 1
        return leave(tape, *args)

    @functools.wraps(gradient)
    def asked(tape: tf.GradientTape, target: Any, sources: Any, *args: Any, **kwargs: Any) -> Any:
        flat = keras.tree.flatten(sources)
        goal = keras.tree.flatten(target)
        # A jacobian is traced as a graph whatever is asked for; there are no numbers in it.
        if not any(map(_is_variable, flat)) or any(map(tf.is_symbolic_tensor, goal)):
            return gradient(tape, target, sources, *args, **kwargs)
        zeros = tf.UnconnectedGradients.ZERO in (*args, *kwargs.values())
        forwards = [f for f in _since_last_update(seen.events) if f.replica == _replica()]
        heads = [[anatomy.logits(o) for o in f.outputs if o.dtype.is_floating] for f in forwards]
        extra = [head for of_one in heads for head in of_one]
        result = gradient(tape, target, [*flat, *extra], *args, **kwargs)
        deltas, rest = [], result[len(flat) :]
        for forward, of_one in zip(forwards, heads):
            of_this = [dense(g) for g in rest[: len(of_one)]]
            # Asked for zeros, the tape returns them also for an output that the loss does not use.
            deltas.append([None if zeros and not np.any(d) else d for d in of_this])
            rest = rest[len(of_one) :]
            forward.used = forward.used or any(d is not None for d in deltas[-1])
        values = result[: len(flat)]
        seen.events.append(
            TapeGradient(
                [np.asarray(t) for t in goal if t is not None],
                flat,
                [dense(g) for g in values],
                values,
                forwards,
                deltas,
                site(),
                _replica(),
            )
        )
        return keras.tree.pack_sequence_as(sources, values)

    with (
        _replaced(tf.GradientTape, "__enter__", entered),
        _replaced(tf.GradientTape, "__exit__", left),
        _replaced(tf.GradientTape, "gradient", asked),
    ):
        yield


def _since_last_update(events: list[Event]) -> list[Forward]:
    recent: list[Forward] = []
    for event in reversed(events):
        if isinstance(event, Apply):
            break
        if isinstance(event, Forward) and event.taped:
            recent.insert(0, event)
    return recent


@contextlib.contextmanager
def _watching_updates(cls: type, seen: Observer) -> Iterator[None]:
    original = cls.apply  # type: ignore[attr-defined]

    @functools.wraps(original)
    def apply(self: Any, grads: Any, trainable_variables: Any = None) -> Any:
        if seen.applying[get_ident()]:  # of an optimizer inside another
            return original(self, grads, trainable_variables)
        grads = list(grads)
        known = anatomy.trained_by(self)
        trainable = list(known if trainable_variables is None else trainable_variables)
        if not self.built:
            self.build(trainable)
        if self is not seen.model.optimizer and id(self) not in seen.own:
            seen.own[id(self)] = (self, tuple(v.numpy() for v in self.variables))
        seen.events.append(
            Apply(
                self,
                [dense(g) for g in grads],
                grads,
                trainable,
                loss_scale(self),
                seen.take(),
                site(),
                _replica(),
            )
        )
        # Of a weight that it was not built for (one that is frozen) Keras would raise.
        known = [anatomy.knows(self, v) for v in trainable]
        if not all(known):
            grads = [g for g, there in zip(grads, known) if there]
            trainable_variables = [v for v, there in zip(trainable, known) if there]
        seen.applying[get_ident()] += 1
        try:
            return original(self, grads, trainable_variables)
        finally:
            seen.applying[get_ident()] -= 1

    with _replaced(cls, "apply", apply):
        yield


def policies(model: keras.Model) -> tuple[str, ...]:
    """The names of the dtype policies of the model and its layers."""
    return tuple(v.dtype_policy.name for v in (model, *surgery.flatten_layers(model)))


def loss_scale(optimizer: keras.optimizers.Optimizer) -> float:
    """The factor by which `optimizer.scale_loss` multiplies, and `apply` divides."""
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        built = optimizer.built
        return float(optimizer.dynamic_scale) if built else float(optimizer.initial_scale)
    return float(optimizer.loss_scale_factor or 1.0)


def dense(gradient: Any) -> np.ndarray | None:
    """A gradient as an array; repeated rows of a sparse one are summed."""
    if gradient is None:
        return None
    return np.asarray(tf.convert_to_tensor(gradient))


def _is_variable(source: Any) -> bool:
    return isinstance(source, (keras.Variable, tf.Variable))


def _replica() -> int:
    context = tf.distribute.get_replica_context()
    return 0 if context is None else int(context.replica_id_in_sync_group)
