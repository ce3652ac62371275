"""The hand-over: what the tape returned, and what of it the optimizer is given."""

import keras
import numpy as np

from tfbig.parity.arrays import Arrays, error, ledger, total
from tfbig.parity.causes import update as rows
from tfbig.parity.facts import Step
from tfbig.parity.observe import loss_scale
from tfbig.parity.stages.explanation import Explanation


def given(step: Step) -> tuple[float, list[np.ndarray | None] | None]:
    """The optimizer's loss scale, and the gradient that it was given, replicas summed.

    Where the same variable is given several times the first counts.
    """
    if not step.applies:
        return 1.0, None
    handed: list[np.ndarray | None] = [None] * len(step.model.trainable_variables)
    seen: set[tuple[int, int]] = set()
    for apply in step.applies:
        for gradient, variable in zip(apply.gradients, apply.variables):
            i = step.index(variable)
            if i is None or gradient is None or (i, apply.replica) in seen:
                continue
            seen.add((i, apply.replica))
            handed[i] = total([handed[i], gradient])
    return step.applies[0].scale, handed


def unscaled(step: Step) -> list[np.ndarray | None]:
    """The gradient that moves the weights: what is applied, without the loss scale, or by hand."""
    scale, handed = given(step)
    if handed is None:
        raws = [step.by_variable(g.values, g.sources) for g in step.gradients]
        handed = [total(column) for column in zip(*raws)]
    return [None if g is None else g / scale for g in handed]


def explain(
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
    out.give_up(f"what is applied ({where}): {said}", *rows.GRADIENT, rows.D38, rows.D41)
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
