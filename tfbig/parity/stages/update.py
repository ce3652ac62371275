"""The last stage of a step: from the gradient that is applied to the weights that come of it."""

import itertools
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfbig import compat
from tfbig.parity import state as states
from tfbig.parity.arrays import Arrays, error, ledger, total
from tfbig.parity.causes import epoch as epoch_rows
from tfbig.parity.causes import update as rows
from tfbig.parity.facts import Step
from tfbig.parity.observe import loss_scale
from tfbig.parity.stages.explanation import Explanation
from tfbig.training import anatomy, surgery

EPSILON = 2.4e-7  # two roundings of a float32


def applied(step: Step) -> tuple[float, list[np.ndarray | None] | None]:
    """The optimizer's loss scale, and the gradient that it was given, replicas summed.

    Where the same variable is given several times the first counts.
    """
    if not step.applies:
        return 1.0, None
    given: list[np.ndarray | None] = [None] * len(step.model.trainable_variables)
    seen: set[tuple[int, int]] = set()
    for apply in step.applies:
        for gradient, variable in zip(apply.gradients, apply.variables):
            i = step.index(variable)
            if i is None or gradient is None or (i, apply.replica) in seen:
                continue
            seen.add((i, apply.replica))
            given[i] = total([given[i], gradient])
    return step.applies[0].scale, given


def unscaled(step: Step) -> list[np.ndarray | None]:
    """The gradient that moves the weights: what is applied, without the loss scale, or by hand."""
    scale, given = applied(step)
    if given is None:
        raws = [step.by_variable(g.values, g.sources) for g in step.gradients]
        given = [total(column) for column in zip(*raws)]
    return [None if g is None else g / scale for g in given]


def changed_gradient(
    step: Step, made: Arrays, applied_: Arrays, where: str | None, out: Explanation
) -> bool:
    """Names what stands between the tape's gradient and the applied one; whether it could."""
    dropped = [
        i
        for i, (m, a) in enumerate(zip(made, applied_))
        if m is not None and np.any(m) and (a is None or not np.any(a))
    ]
    if dropped:
        path = step.model.trainable_variables[dropped[0]].path
        said = f"{len(dropped)} of {len(made)} gradients are not applied, {path}'s the first"
        out.add(step, rows.D38, said, where)
        made = [None if i in dropped else m for i, m in enumerate(made)]
        if error(applied_, made) <= step.tolerance:
            return True
    if _permuted(step, made, applied_, where, out):
        return True
    for row in rows.GRADIENT:
        assert row.hypothesis is not None
        for variant, said in row.hypothesis(step, made, applied_):
            if error(applied_, variant) <= max(step.tolerance, 1e-5):
                if row in (rows.D29, rows.D30, rows.D31) and _clips(step, made, applied_):
                    return True  # by hand what the model's optimizer would do
                out.add(step, row, said, where)
                return True
    together = ledger(applied_, {"made": list(made)})
    said = f"{together.error:.2g} of it is no multiple of what the tape returned"
    out.unexplained.append(f"what is applied ({where}): {said}")
    return False


def clipped(optimizer: keras.optimizers.Optimizer, gradients: Arrays) -> list[np.ndarray | None]:
    """Gradients as the optimizer itself would clip them."""
    optimizer = rows.plain(optimizer)
    there = [None if g is None else np.asarray(g, "float64") for g in gradients]
    if optimizer.clipnorm:
        limit = optimizer.clipnorm
        return [None if g is None else g * min(1, limit / (np.linalg.norm(g) or 1)) for g in there]
    if optimizer.global_clipnorm:
        size = np.sqrt(sum(np.sum(g**2) for g in there if g is not None))
        share = min(1.0, optimizer.global_clipnorm / (size or 1.0))
        return [None if g is None else g * share for g in there]
    if optimizer.clipvalue:
        limit = optimizer.clipvalue
        return [None if g is None else np.clip(g, -limit, limit) for g in there]
    return there


def _clips(step: Step, made: Arrays, applied_: Arrays) -> bool:
    scale = loss_scale(step.model.optimizer)
    unscaled = [None if g is None else g / scale for g in made]
    return error(applied_, clipped(step.model.optimizer, unscaled)) <= max(step.tolerance, 1e-5)


def _permuted(
    step: Step, made: Arrays, applied_: Arrays, where: str | None, out: Explanation
) -> bool:
    """D41: the applied gradients are the tape's, at other variables."""
    moved, taken = [], set()
    for i, gradient in enumerate(applied_):
        if gradient is None:
            continue
        fits = [
            j
            for j, m in enumerate(made)
            if m is not None
            and j not in taken
            and m.shape == gradient.shape
            and error([gradient], [m]) <= step.tolerance
        ]
        if not fits:
            return False
        j = i if i in fits else fits[0]
        taken.add(j)
        if j != i:
            moved.append((i, j))
    if not moved:
        return False
    variables = step.model.trainable_variables
    i, j = moved[0]
    said = f"{len(moved)} gradients; {variables[i].path} is given that of {variables[j].path}"
    out.add(step, rows.D41, said, where)
    return True


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
    given = _given(step, gradient)
    begin = states.trainable(step.model, step.begin)
    aim = step.moved()

    def moved(change: rows.Changed) -> list[np.ndarray]:
        return _moved(step, given, change)

    def same(change: rows.Changed) -> bool:
        return _same(aim, moved(change), begin, step.tolerance)

    plain = rows.Changed("")
    stock = moved(plain)
    if _same(aim, stock, begin, step.tolerance):
        _slots(step, where, out)
        _repeated_rows(step, given, stock, where, out)
        return
    options = [
        (row, change)
        for row in rows.UPDATE
        if row.hypothesis is not None
        for change in row.hypothesis(step, own)
    ]
    for count in (1, 2, 3):
        for combination in itertools.combinations(options, count):
            change = combination[0][1]
            for _, other in combination[1:]:
                change = change & other
            if same(change):
                for row, one in combination:
                    out.add(step, row, one.said, where)
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
    if own is None:
        downhill = ledger(aim, {"gradient": list(gradient)})
        if downhill.error <= max(step.tolerance, 1e-4):
            rate = -downhill.coefficients["gradient"]
            kind = type(rows.plain(step.model.optimizer)).__name__
            said = (
                f"the weights move by -{rate:.4g} x gradient, and the model's optimizer is {kind}"
            )
            out.add(step, rows.D37, said, where)
            return
    if np.all([not np.any(m) for m in aim]):
        out.unexplained.append(f"update ({where}): the loop moves no weight")
        return
    out.unexplained.append(
        f"update ({where}): the weights move otherwise, by {error(aim, stock):.2g}, than the "
        f"model's optimizer moves them with this gradient"
    )


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
        if v is rows.plain(step.model.optimizer).iterations:
            row = rows.D35
        out.add(step, row, said, where)
        return


def _given(step: Step, gradient: Arrays) -> list[Any]:
    """The gradient for the model's optimizer: sparse where the loop's was."""
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


def _repeated_rows(
    step: Step,
    given: Sequence[Any],
    stock: Sequence[np.ndarray],
    where: str | None,
    out: Explanation,
) -> None:
    """D59: fit hands on repeated rows as they are (V2), and the loop sums them, or the reverse."""
    embeddings = [i for i in _embedded(step) if i < len(given) and given[i] is not None]
    if not embeddings or compat.active("V2") or not compat.present("V2"):
        return
    dense = [i for i in embeddings if not isinstance(given[i], tf.IndexedSlices)]
    repeated = [
        i
        for i in embeddings
        if i not in dense and len(np.unique(given[i].indices)) < len(np.asarray(given[i].indices))
    ]
    merged = [i for i in embeddings if i not in dense and i not in repeated]
    rows_in_fit = _embedding_rows(step)
    if not rows_in_fit or not (dense or merged):
        return
    # As fit has it: each row of the batch apart; its sum is known, so the first takes all of it.
    apart = list(given)
    for i in (*dense, *merged):
        tokens = rows_in_fit.get(i)
        if tokens is not None:
            apart[i] = tokens
    other = _moved(step, apart, rows.Changed(""))
    begin = states.trainable(step.model, step.begin)
    if not _same(stock, other, begin, max(step.tolerance, 1e-4)):
        path = step.model.trainable_variables[(dense or merged)[0]].path
        said = f"{path}: the loop's update differs by {error(other, stock):.2g} from fit's"
        out.add(step, rows.D59, said, where)


def _embedded(step: Step) -> list[int]:
    tables = [
        layer.embeddings
        for layer in surgery.flatten_layers(step.model)
        if isinstance(layer, keras.layers.Embedding)
    ]
    return [i for t in tables if (i := step.index(t)) is not None]


def _embedding_rows(step: Step) -> dict[int, tf.IndexedSlices]:
    """The sparse gradients of the tape itself, where it returned such."""
    found = {}
    for gradient in step.gradients:
        for source, value in zip(gradient.sources, gradient.given):
            i = step.index(source)
            if i is not None and isinstance(value, tf.IndexedSlices):
                found[i] = value
    return found


def not_finite(step: Step, out: Explanation) -> None:
    """A gradient that is not finite: whether `fit` would have skipped the step."""
    where = step.applies[0].at if step.applies else None
    scaled = isinstance(step.model.optimizer, keras.optimizers.LossScaleOptimizer)
    moved = any(np.any(~np.isfinite(m)) for m in step.moved())
    if scaled and moved:
        out.add(step, rows.D27, "the gradient is not finite, and the loop applies it", where)
    else:
        out.unexplained.append("the gradient is not finite: look at the data and the loss first")
