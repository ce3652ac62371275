"""Causes between the gradient and the weights: what is applied, by which optimizer.

A hypothesis on the gradient takes `(step, gradients)`, what the tape returned, and returns
`(gradients, said)` as they may have been changed. One on the update takes `(step, own)`, the
optimizer that the loop used (the model's or another), and returns `Changed` optimizers.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfbig.parity import state as states
from tfbig.parity.arrays import Arrays, norm
from tfbig.parity.causes.forward import D28 as PRECISION
from tfbig.parity.causes.row import LATER, Row
from tfbig.parity.facts import Step
from tfbig.training import anatomy

Variant = tuple[list, str]


def global_clip(step: Step, raw: Arrays, applied: Arrays) -> list[Variant]:
    """D30: by the norm of all."""
    size, limit = norm(raw), norm(applied)
    if not size or limit >= size:
        return []
    clipped = [None if g is None else g * (limit / size) for g in raw]
    return [(clipped, f"the norm of all gradients is {size:.6g}, and {limit:.6g} is applied")]


def norm_clip(step: Step, raw: Arrays, applied: Arrays) -> list[Variant]:
    """D29: each variable by its norm."""
    norms = [(norm([g]), norm([c])) for g, c in zip(raw, applied) if g is not None]
    cut = [after for before, after in norms if after < before * (1 - 1e-6)]
    if not cut or max(cut) - min(cut) > 1e-4 * max(cut):
        return []
    limit = float(np.mean(cut))
    clipped = [None if g is None else g * min(1.0, limit / (norm([g]) or 1.0)) for g in raw]
    return [(clipped, f"the norms of {len(cut)} gradients are cut to {limit:.6g}")]


def value_clip(step: Step, raw: Arrays, applied: Arrays) -> list[Variant]:
    """D31: each number."""
    limit = max((float(np.abs(g).max()) for g in applied if g is not None and g.size), default=0.0)
    clipped = [None if g is None else np.clip(g, -limit, limit) for g in raw]
    cut = sum(int((np.abs(g) > limit).sum()) for g in raw if g is not None)
    return [(clipped, f"{cut} numbers are cut to {limit:.6g}")] if cut else []


def half_gradients(step: Step, raw: Arrays, applied: Arrays) -> list[Variant]:
    """D28: rounded to half precision."""
    return [
        (
            [None if g is None else np.asarray(tf.cast(tf.cast(g, d), "float32")) for g in raw],
            f"the gradients are rounded to {d}",
        )
        for d in ("float16", "bfloat16")
    ]


D29 = Row(
    "D29",
    "clipping of each gradient by its norm (clipnorm) in one of the two only",
    "optimizer = ...(clipnorm=...), the same as the model's, or model.optimizer itself",
    norm_clip,
)
D30 = Row(
    "D30",
    "clipping by the global norm in one of the two only",
    "optimizer = ...(global_clipnorm=...), the same as the model's, or model.optimizer itself",
    global_clip,
)
D31 = Row(
    "D31",
    "clipping by value in one of the two only",
    "optimizer = ...(clipvalue=...), the same as the model's, or model.optimizer itself",
    value_clip,
)
D28 = dataclasses.replace(PRECISION, hypothesis=half_gradients)
GRADIENT = (D30, D29, D31, D28)


@dataclasses.dataclass(frozen=True)
class Changed:
    """A way to update: attributes of the optimizer, constraints, slots.

    Attributes:
        attributes: of the optimizer, set while it applies.
        constraints: whether they hold.
        fresh: whether the slots are those of a new optimizer.
        optimizer: another one, if not the model's.
        applies: how often the same gradient is applied.
        said: the evidence.
    """

    said: str
    attributes: dict[str, Any] = dataclasses.field(default_factory=dict)
    constraints: bool = True
    fresh: bool = False
    optimizer: Callable[[], keras.optimizers.Optimizer] | None = None
    applies: int = 1

    def __and__(self, other: "Changed") -> "Changed":
        return Changed(
            f"{self.said}; {other.said}",
            {**self.attributes, **other.attributes},
            self.constraints and other.constraints,
            self.fresh or other.fresh,
            self.optimizer or other.optimizer,
            max(self.applies, other.applies),
        )


@contextlib.contextmanager
def changed(optimizer: keras.optimizers.Optimizer, attributes: dict[str, Any]) -> Iterator[None]:
    """Sets attributes of an optimizer for a while."""
    attributes = dict(attributes)
    rate = attributes.pop("learning_rate", None)
    if rate is not None:
        with anatomy.with_learning_rate(optimizer, rate), changed(optimizer, attributes):
            yield
        return
    before = {name: getattr(optimizer, name) for name in attributes}
    try:
        for name, value in attributes.items():
            setattr(optimizer, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(optimizer, name, value)


@contextlib.contextmanager
def without_constraints(variables: Sequence[keras.Variable]) -> Iterator[None]:
    """Lets weights move freely for a while."""
    before = [v.constraint for v in variables]
    try:
        for v in variables:
            v.constraint = None
        yield
    finally:
        for v, constraint in zip(variables, before):
            v.constraint = constraint


def plain(optimizer: keras.optimizers.Optimizer) -> keras.optimizers.Optimizer:
    """The optimizer inside a `LossScaleOptimizer`, or itself."""
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        return optimizer.inner_optimizer
    return optimizer


def differences(step: Step, own: keras.optimizers.Optimizer | None) -> dict[str, tuple[Any, Any]]:
    """In which arguments the loop's optimizer differs from the model's: `name -> (model's, own)`.

    Where there is none (the loop moves the weights by hand) each thing that the model's does
    besides may be missing.
    """
    model = plain(step.model.optimizer)
    if own is None:
        extras = ("clipnorm", "global_clipnorm", "clipvalue", "weight_decay", "use_ema")
        return {
            name: (getattr(model, name), False if name == "use_ema" else None)
            for name in extras
            if getattr(model, name)
        }
    own = plain(own)
    if own is model or not isinstance(model, type(own)) and not isinstance(own, type(model)):
        return {}
    ours, theirs = model.get_config(), own.get_config()
    skip = {"name", "loss_scale_factor"}
    return {
        name: (ours[name], theirs[name])
        for name in ours
        if name in theirs and name not in skip and ours[name] != theirs[name]
    }


def _argument(*names: str) -> Callable[[Step, Any], list[Changed]]:
    def hypothesis(step: Step, own: keras.optimizers.Optimizer | None) -> list[Changed]:
        found = []
        for name, (ours, theirs) in differences(step, own).items():
            if name not in names:
                continue
            said = f"{name} is {short(theirs)} in the loop, and {short(ours)} in the model's"
            if name == "learning_rate":
                assert own is not None
                theirs = anatomy.learning_rate(plain(own))
            found.append(Changed(said, {name: theirs}))
        return found

    return hypothesis


def short(value: Any) -> str:
    """A setting in a few letters."""
    if isinstance(value, dict):  # a schedule, serialized
        return str(value.get("class_name", "a schedule"))
    return f"{value:.6g}" if isinstance(value, float) else repr(value)


def no_constraint(step: Step, own: keras.optimizers.Optimizer | None) -> list[Changed]:
    """D34: the constraint is not applied."""
    variables = step.model.trainable_variables
    if not any(v.constraint is not None for v in variables):
        return []
    broken = [
        v.path
        for v, value in zip(variables, states.trainable(step.model, step.end))
        if v.constraint is not None
        and not np.allclose(np.asarray(v.constraint(tf.constant(value))), value, atol=1e-6)
    ]
    where = f"{broken[0]} violates its constraint" if broken else "it is the update without one"
    return [Changed(where, constraints=False)]


def fresh_slots(step: Step, own: keras.optimizers.Optimizer | None) -> list[Changed]:
    """D36: slots of a new optimizer in each step, or in each epoch."""
    if own is None:
        return []  # by hand there are none
    return [
        Changed(
            f"in step {step.number} the update is that of a new optimizer, whose slots are empty",
            fresh=True,
        )
    ]


def several_applies(step: Step, own: keras.optimizers.Optimizer | None) -> list[Changed]:
    """D35: the same gradient is applied more than once."""
    k = len(step.applies)
    if k < 2 or step.replicas > 1:
        return []
    return [Changed(f"apply is called {k} times in the step", applies=k)]


def another_optimizer(step: Step, own: keras.optimizers.Optimizer | None) -> list[Changed]:
    """D37: another kind of optimizer."""
    model = plain(step.model.optimizer)
    if own is None or differences(step, own) or plain(own) is model:
        return []
    kind, config = type(plain(own)), plain(own).get_config()
    if kind is type(model):
        return []
    said = f"the loop's optimizer is {kind.__name__}, and the model's is {type(model).__name__}"
    return [Changed(said, optimizer=lambda: kind.from_config(config), fresh=True)]


D33 = Row(
    "D33",
    "decoupled weight decay in one of the two only",
    "optimizer = ...(weight_decay=...), the same as the model's, or model.optimizer itself",
    _argument("weight_decay"),
)
D34 = Row(
    "D34",
    "the constraint of a weight is not applied",
    "apply with optimizer.apply_gradients, or variable.assign(variable.constraint(variable))",
    no_constraint,
    threads=("keras#18883",),
)
D35 = Row(
    "D35",
    "another learning rate, or another number of updates",
    "model.optimizer.apply_gradients(zip(gradients, variables)), once for each step",
    _argument("learning_rate"),
)
D35_TWICE = dataclasses.replace(D35, hypothesis=several_applies)
D36 = Row(
    "D36",
    "the optimizer's slots are not those of the steps before",
    "build the optimizer once, outside of the loop",
    fresh_slots,
)
D37 = Row(
    "D37",
    "another optimizer, or other numbers in it (epsilon, betas, momentum)",
    "model.optimizer.apply_gradients(zip(gradients, variables))",
    _argument(
        "epsilon", "beta_1", "beta_2", "rho", "momentum", "nesterov", "amsgrad", "centered",
        "initial_accumulator_value",
    ),
)  # fmt: skip
D37_KIND = dataclasses.replace(D37, hypothesis=another_optimizer)
D60 = Row(
    "D60",
    "the running average of weights (EMA) is in one of the two only, or moves at other steps",
    "the same use_ema, ema_momentum and ema_overwrite_frequency; an update for each real step",
    _argument("use_ema", "ema_momentum", "ema_overwrite_frequency"),
)
UPDATE = (
    dataclasses.replace(D29, hypothesis=_argument("clipnorm")),
    dataclasses.replace(D30, hypothesis=_argument("global_clipnorm")),
    dataclasses.replace(D31, hypothesis=_argument("clipvalue")),
    D33,
    D34,
    D35,
    D35_TWICE,
    D60,
    D37,
    D37_KIND,
    D36,
)

D27 = Row(
    "D27",
    "fit skips a step whose gradient is not finite, the loop does not",
    "apply with the LossScaleOptimizer, which checks",
)
D38 = Row(
    "D38",
    "some weights get no gradient",
    "tape.gradient(loss, model.trainable_variables), and no stop_gradient or NumPy on the way",
    threads=("tensorflow#33205",),
)
D39 = Row(
    "D39",
    "no weight gets a gradient: the tape is cut",
    "predictions = model(x, training=True): no predict, numpy, argmax or cast to int in the tape",
    threads=("tensorflow#20630", "tensorflow#36596"),
)
D40 = Row(
    "D40",
    "trainable was changed after compile",
    "call model.compile(...) again after changing trainable",
)
D41 = Row(
    "D41",
    "the gradients meet the variables in another order",
    "zip the gradients with the very list that the tape was asked for",
)
D59 = Row(
    "D59",
    "repeated rows of an embedding's gradient are summed in one of the two only (V2)",
    "with tfbig.compat.fixed('V2'): model.fit(...), which sums them as it should",
)
D65 = Row(
    "D65",
    "two optimizers, one of them scaling its loss (GAN)",
    "comes with tfbig's several objectives",
    kind=LATER,
)
ROWS = (D29, D30, D31, D33, D34, D35, D36, D37, D60, D27, D38, D39, D40, D41, D59, D65)
