"""Explains one step of a loop: which of its stages is not as in `fit`, and why.

    inputs -> forward -> loss -> gradient -> what is applied -> update -> state

Each stage (a file of `stages/`) is replayed as `fit` would take it from what the loop had before
that stage. Where the result differs by more than ten times the noise, the hypotheses of the stage
are replayed (`causes/`), and only one that reproduces the loop's numbers is named. So a fault in
one stage does not hide one in the next.
"""

import dataclasses

import numpy as np

from tfbig.parity import state as states
from tfbig.parity.arrays import Arrays, error
from tfbig.parity.causes.forward import D06
from tfbig.parity.facts import Part, Step
from tfbig.parity.observe import Apply, TapeGradient
from tfbig.parity.replay import Forward
from tfbig.parity.replay import gradient as fit_gradient
from tfbig.parity.stages import factors, gradient, handover, loss, start, state, update
from tfbig.parity.stages.explanation import Explanation, PartResult


def explain(step: Step, update_only: bool = False) -> Explanation:
    """Why a step of the loop is not the step that `fit` would have taken.

    Args:
        step: of the loop.
        update_only: whether the gradient is taken as it is, since an earlier step has told what is
            wrong with it.
    """
    out = Explanation()
    if not step.known:
        out.notes.append(
            "which rows of the data a step saw cannot be told (rows that repeat, or random "
            "augmentation): the gradients are not judged, only what is made of them"
        )
        if step.applies:
            update.explain(step, handover.unscaled(step), out)
        return out
    parts = step.parts()
    wanted, _ = fit_gradient(step.model, step.begin, step.batch)
    after = states.take(step.model)
    applied = handover.unscaled(step)
    if not _finite(wanted):
        out.notes.append("fit's gradient is not finite either: look at the data and the loss")
        return out
    if not parts:
        if applied and error(wanted, applied) <= step.tolerance:
            update.explain(step, applied, out)  # the model's parts were called one by one
            return out
        start.without_outputs(step, out)
        _, given = handover.given(step)
        if given is not None and any(np.any(g) for g in given if g is not None):
            update.explain(step, given, out)
        return out
    start.frozen(step, out)
    events: list[TapeGradient | Apply] = [*step.gradients, *step.applies]
    numbers = [g for event in events for g in _gradients_of(event)]
    if not _finite(numbers):
        update.not_finite(step, out)
        return out
    if update_only:
        update.explain(step, handover.unscaled(step), out)
        return out
    if error(wanted, applied) <= step.tolerance:
        # In whatever way the loop got there: as it should be.
        update.explain(step, applied, out)
        state.explain(step, after, out)
        return out
    out.gradient_differs = True
    start.starting_point(step, parts, out)
    results = [_part(step, part, out) for part in parts]
    update.explain(step, factors.explain(step, parts, results, out), out)
    replay = results[0].replay
    if len(parts) == 1 and replay is not None and not {"D10", "D43"} & {c.id for c in out.causes}:
        seen = parts[0].forwards[0]
        again = Forward(step.model, step.begin, seen.x, replay.training, replay.under)
        state.explain(step, again.after, out)
    return out


def _part(step: Step, part: Part, out: Explanation) -> PartResult:
    start.inputs(step, part, out)
    replays = [start.forward(step, seen, out) for seen in part.forwards]
    totals: list[float] | None = None
    weights: list[float] = []
    for replay, seen, batch in zip(replays, part.forwards, part.batches):
        found = None
        if replay is not None:
            part_ = dataclasses.replace(part, batch=batch, share=len(batch) / len(step.batch))
            found, weights = loss.explain(step, part_, replay, part.gradient.deltas_of(seen), out)
        if found is None:
            totals = None
            break
        # Two passes over the same batch that both feed the loss: their shares add up.
        totals = found if totals is None else [a + b for a, b in zip(totals, found)]
    if part.repeated:
        said = f"{len(part.forwards)} forward passes over one batch feed the loss"
        out.add(step, D06, said, part.forwards[1].at)
    penalties = gradient.explain(step, part, [r for r in replays if r is not None], out)
    raw = step.by_variable(part.gradient.values, part.gradient.sources)
    return PartResult(totals, weights, penalties, raw, replays[0])


def _finite(arrays: Arrays) -> bool:
    return all(np.isfinite(a).all() for a in arrays if a is not None)


def _gradients_of(event: TapeGradient | Apply) -> list[np.ndarray]:
    values = event.values if isinstance(event, TapeGradient) else event.gradients
    return [v for v in values if v is not None]
