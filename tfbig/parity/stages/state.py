"""The stage of the state: statistics and seeds that the step leaves."""

import numpy as np

from tfbig.parity import state as states
from tfbig.parity.causes import forward as forward_rows
from tfbig.parity.facts import Step
from tfbig.parity.stages.explanation import Explanation
from tfbig.training import anatomy


def explain(step: Step, after: states.State, out: Explanation) -> None:
    """Statistics and seeds: what the loop left, and what one forward pass leaves (`after`)."""
    if len(step.parts()) > 1:
        return  # each part has statistics and draws seeds of its own
    metrics = {id(v) for v in step.model.metrics_variables}
    trained = {id(v) for v in step.model.trainable_variables}
    # Told of by `start.frozen`.
    trained |= {id(v) for apply in step.applies for v in apply.variables}
    odd = []
    for v, begin, fit, loop in zip(
        states.variables(step.model), step.begin.values, after.values, step.end.values
    ):
        if id(v) in metrics or id(v) in trained:
            continue
        if anatomy.is_seed(v):
            if not np.array_equal(fit, loop):
                steps = int(np.abs(loop.astype("int64") - begin.astype("int64")).max())
                due = int(np.abs(fit.astype("int64") - begin.astype("int64")).max())
                odd.append((v, float(steps / due) if due else float("inf")))
            continue
        size = float(np.linalg.norm(fit.astype("float64")))
        rest = float(np.linalg.norm(fit.astype("float64") - loop.astype("float64")))
        if rest > max(step.tolerance, 1e-5) * max(size, 1e-12):
            moved = np.linalg.norm(loop.astype("float64") - begin.astype("float64"))
            wanted = np.linalg.norm(fit.astype("float64") - begin.astype("float64"))
            odd.append((v, float(moved / wanted) if wanted else float("inf")))
    if not odd:
        return
    variable, ratio = next(((v, r) for v, r in odd if not anatomy.is_seed(v)), odd[0])
    said = f"{variable.path} moves {ratio:.4g} times as far as in fit"
    used = [f for f in step.forwards if f.used]
    extra = [f for f in step.forwards if f not in used[:1]]
    if extra and any(f.taped for f in extra):
        out.add(
            step,
            forward_rows.D06,
            f"{len(extra) + 1} forward passes in the tape; {said}",
            extra[0].at,
        )
    elif extra:
        out.add(
            step,
            forward_rows.D09,
            f"{len(extra) + 1} forward passes in the step; {said}",
            extra[0].at,
        )
    elif anatomy.is_seed(variable):
        out.add(step, forward_rows.D10, said, used[0].at if used else None)
    else:
        out.give_up(f"state: {said}")
