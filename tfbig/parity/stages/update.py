"""The last stage of a step: from the gradient that is applied to the weights that come of it."""

import itertools
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfbig.parity import state as states
from tfbig.parity.arrays import Arrays, error, ledger
from tfbig.parity.causes import epoch as epoch_rows
from tfbig.parity.causes import update as rows
from tfbig.parity.facts import Step
from tfbig.parity.observe import loss_scale
from tfbig.parity.stages import repeated
from tfbig.parity.stages.explanation import Explanation
from tfbig.training import anatomy

EPSILON = 2.4e-7  # two roundings of a float32


def explain(step: Step, gradient: Arrays, out: Explanation) -> None:
    """Names why the weights moved otherwise than the model's optimizer moves them."""
    where = step.applies[0].at if step.applies else step.gradients[-1].at
    own = step.applies[0].optimizer if step.applies else None
    empty = [
        a for a in step.applies[1:] if not any(np.any(g) for g in a.gradients if g is not None)
    ]
    if empty:
        said = f"apply is called once more with gradients that are all zero ({empty[0].at})"
        out.add(step, epoch_rows.D66, said, empty[0].at)
    given = given_to_fit(step, gradient)
    begin = states.trainable(step.model, step.before_fit)
    aim = step.moved()

    def moved(change: rows.Changed) -> list[np.ndarray]:
        return _moved(step, given, change)

    def same(change: rows.Changed) -> bool:
        return _same(aim, moved(change), begin, step.tolerance)

    plain = rows.Changed("")
    stock = moved(plain)
    if _same(aim, stock, begin, step.tolerance):
        _slots(step, where, out)
        _settings(step, own, where, out)
        repeated.explain(step, given, stock, _moved, where, out)
        return
    if not any(np.any(m) for m in aim):
        out.give_up(f"update ({where}): the loop moves no weight")
        return
    options = [
        (row, change)
        for row in rows.UPDATE
        if row.hypothesis is not None
        for change in row.hypothesis(step, own)
    ]
    for count in (1, 2, 3) if len(options) <= 6 else (1, 2):
        for combination in itertools.combinations(options, count):
            change = combination[0][1]
            for _, other in combination[1:]:
                change = change & other
            if same(change):
                for row, one in combination:
                    out.add(step, row, one.said, where)
                return
    if own is None and _downhill(step, gradient, aim, where, out):
        return
    along = ledger(aim, {"update": stock, "weights": begin})
    factor, decay = along.coefficients["update"], along.coefficients["weights"]
    predicted = [factor * s + decay * b for s, b in zip(stock, begin)]
    if _same(aim, predicted, begin, max(step.tolerance, 1e-4)):
        if abs(factor - 1) > 1e-3:
            out.add(step, rows.D35, f"the weights move {factor:.6g} times as far as in fit", where)
        if abs(decay) > 1e-7 and not _same(aim, [factor * s for s in stock], begin, 1e-4):
            said = f"the update differs by {decay:.3g} times the weights"
            out.add(step, rows.D33, said, where)
        return
    if _decay_on_some(step, aim, stock, begin, where, out):
        return
    out.give_up(
        f"update ({where}): the weights move otherwise, by {error(aim, stock):.2g}, than the "
        f"model's optimizer moves them with this gradient",
        *rows.UPDATE,
    )


def _downhill(
    step: Step, gradient: Arrays, aim: Sequence[np.ndarray], where: str | None, out: Explanation
) -> bool:
    """A loop by hand that goes straight down the gradient, where the model's optimizer does not."""
    down = ledger(aim, {"gradient": list(gradient)})
    if down.error > max(step.tolerance, 1e-4):
        return False
    optimizer, rate = rows.plain(step.model.optimizer), -down.coefficients["gradient"]
    plain = type(optimizer) is keras.optimizers.SGD and not optimizer.momentum
    said = f"the weights move by -{rate:.4g} x gradient; the model's optimizer is "
    said += f"{type(optimizer).__name__}, its rate {float(optimizer.learning_rate):.4g}"
    out.add(step, rows.D35 if plain else rows.D37, said, where)
    return True


def _settings(
    step: Step, own: keras.optimizers.Optimizer | None, where: str | None, out: Explanation
) -> None:
    """Settings of an optimizer of the loop's own that make no difference to the weights so far."""
    if own is None:
        return
    for name, (ours, theirs) in rows.differences(step, own).items():
        said = f"{name} is {rows.short(theirs)} in the loop, and {rows.short(ours)} in the model's"
        if name in ("use_ema", "ema_momentum", "ema_overwrite_frequency"):
            out.add(step, rows.D60, said, where)
        else:
            out.notes.append(f"{said}: no difference in these steps, but perhaps in later ones")


def _slots(step: Step, where: str | None, out: Explanation) -> None:
    """What the update left in the optimizer, beside what one update leaves; the model is as after
    the replay of it."""
    if not step.applies or step.applies[0].optimizer is not step.model.optimizer:
        return
    if step.replicas > 1:
        return
    for v, begin, loop in zip(
        step.model.optimizer.variables, step.before_fit.slots, step.end.slots
    ):
        fit = v.numpy().astype("float64")
        difference = np.linalg.norm(loop - fit)
        wanted, moved = (float(np.linalg.norm(end - begin)) for end in (fit, loop))
        if difference <= 1e-4 * wanted + EPSILON * np.linalg.norm(fit):
            continue
        said = f"{v.path} moves {moved / wanted if wanted else float('inf'):.4g} times as far"
        row = rows.D60 if anatomy.is_average(v) else rows.D36
        optimizer = rows.plain(step.model.optimizer)
        if v is optimizer.iterations or v is anatomy.learning_rate(optimizer):
            row = rows.D35
        out.add(step, row, said, where)
        return


def given_to_fit(step: Step, gradient: Arrays) -> list[Any]:
    """The loop's gradient as the model's optimizer is to get it: sparse where the loop's was."""
    scale = loss_scale(step.model.optimizer)
    sparse: dict[int, Any] = {}
    for apply in step.applies if step.replicas == 1 else []:
        for g, variable in zip(apply.given, apply.variables):
            i = step.index(variable)
            if i is not None and isinstance(g, tf.IndexedSlices) and i not in sparse:
                share = scale / apply.scale
                sparse[i] = tf.IndexedSlices(g.values * share, g.indices, g.dense_shape)
    return [
        sparse.get(i, None if g is None else tf.constant(g * scale, "float32"))
        for i, g in enumerate(gradient)
    ]


def _moved(step: Step, given: Sequence[Any], change: rows.Changed) -> list[np.ndarray]:
    model, before = step.model, step.before_fit
    variables = model.trainable_variables
    optimizer = model.optimizer
    if change.optimizer is not None:
        optimizer = change.optimizer()
        optimizer.build(variables)
    elif change.fresh:
        before = states.State(before.values, fresh_slots(model))
    begin = states.trainable(model, before)
    states.put(model, before)
    held = (
        rows.without_constraints(variables) if not change.constraints else rows.changed(model, {})
    )
    with held, rows.changed(rows.plain(optimizer), change.attributes):
        for _ in range(change.applies):
            optimizer.apply(list(given), variables)
        for extra in step.applies[1:] if change.applies == 1 else []:  # a step without data
            if not any(np.any(g) for g in extra.gradients if g is not None):
                optimizer.apply(
                    [None if g is None else tf.zeros_like(v) for g, v in zip(given, variables)],
                    variables,
                )
    ends = [v.numpy() for v in variables]
    return [e.astype("float64") - b.astype("float64") for b, e in zip(begin, ends)]


def fresh_slots(model: keras.Model) -> tuple[np.ndarray, ...]:
    """The slots of a new optimizer like the model's."""
    optimizer = type(model.optimizer).from_config(model.optimizer.get_config())
    optimizer.build(model.trainable_variables)
    return tuple(v.numpy() for v in optimizer.variables)


def _same(
    a: Sequence[np.ndarray], b: Sequence[np.ndarray], begin: Sequence[np.ndarray], tolerance: float
) -> bool:
    for u, v, w in zip(a, b, begin):
        rounding = EPSILON * float(np.linalg.norm(w.astype("float64")))
        if np.linalg.norm(u - v) > tolerance * np.linalg.norm(v) + rounding:
            return False
    return True


def _decay_on_some(
    step: Step,
    aim: Sequence[np.ndarray],
    stock: Sequence[np.ndarray],
    begin: Sequence[np.ndarray],
    where: str | None,
    out: Explanation,
) -> bool:
    """D33 where it holds for some variables only, or differs from one to the other."""
    paths, rate = [], 0.0
    for v, a, s, b in zip(step.model.trainable_variables, aim, stock, begin):
        if _same([a], [s], [b], step.tolerance):
            continue
        along = ledger([a - s], {"weights": [b]})
        if not _same([a], [s + along.coefficients["weights"] * b], [b], max(step.tolerance, 1e-4)):
            return False
        paths.append(v.path)
        rate = along.coefficients["weights"]
    said = f"the update differs by {rate:.3g} times the weights, on {', '.join(paths[:3])}"
    out.add(step, rows.D33, said, where)
    return True


def not_finite(step: Step, out: Explanation) -> None:
    """A gradient that is not finite: whether `fit` would have skipped the step."""
    where = step.applies[0].at if step.applies else None
    scaled = isinstance(step.model.optimizer, keras.optimizers.LossScaleOptimizer)
    moved = any(np.any(m) for m in step.moved())  # NaN counts
    if scaled and not moved:
        return  # left out, as fit leaves it out
    if scaled:
        out.add(step, rows.D27, "the gradient is not finite, and the loop applies it", where)
    else:
        out.give_up("the gradient is not finite: look at the data and the loss first")
