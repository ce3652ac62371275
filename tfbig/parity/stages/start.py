"""The first stage: where the loop begins, what it calls the model with, what comes out."""

from collections.abc import Sequence

import numpy as np

from tfbig.parity import state as states
from tfbig.parity.arrays import error
from tfbig.parity.causes import forward as forward_rows
from tfbig.parity.causes import update as update_rows
from tfbig.parity.facts import Part, Step
from tfbig.parity.observe import Forward as Seen
from tfbig.parity.replay import Forward
from tfbig.parity.stages.explanation import Explanation
from tfbig.training import anatomy


def without_outputs(step: Step, out: Explanation) -> None:
    """A loop in which no gradient by the model's outputs was seen."""
    gradients = step.gradients
    if gradients and all(v is None for g in gradients for v in g.values):
        out.add(step, update_rows.D39, "all gradients are None", gradients[0].at)
        return
    trained = [s for g in gradients for s in g.sources if step.index(s) is not None]
    if trained and step.forwards:
        said = "the loss does not depend on what model(x) returned"
        out.add(step, update_rows.D39, said, gradients[0].at)
        return
    sources = [s for g in gradients for s in g.sources]
    if sources and all(step.index(s) is None for s in sources):
        names = ", ".join(str(getattr(s, "path", s.name)) for s in sources[:2])
        moved = any(np.any(m) for m in step.moved())
        said = f"the tape is asked for {names}, ..., none of which the model trains"
        if moved:
            said += "; yet the result moves the model's weights"
        out.add(step, forward_rows.D42, said, gradients[0].at)
        return
    if not gradients and not any(np.any(m) for m in step.moved()):
        out.give_up("the loop took no gradient by the model's weights and moved none of them")
        return
    if not step.forwards and gradients:
        out.give_up(
            "the loop never called the model as a whole (model(x, training=True)): its gradient "
            "can be compared, but not its parts"
        )
        return
    out.give_up("the loss does not depend on what model(x) returned")


def starting_point(step: Step, parts: Sequence[Part], out: Explanation) -> None:
    """Weights (D43) and seeds (D10) at the first forward pass, beside those at the start."""
    first = parts[0].forwards[0]
    begin, at = (states.trainable(step.model, s) for s in (step.begin, first.before))
    difference = error(begin, at)
    if difference > 0:
        said = "at the forward pass the weights differ from those at the start by "
        out.add(step, forward_rows.D43, said + f"{difference:.3g} (relative)", first.at)
    elif step.forwards[0] is first:
        pairs = zip(states.variables(step.model), step.begin.values, first.before.values)
        moved = [v.path for v, a, b in pairs if anatomy.is_seed(v) and not np.array_equal(a, b)]
        if moved:
            said = f"at the forward pass {moved[0]} is not what it was at the start of the step"
            out.add(step, forward_rows.D10, said, first.at)


def frozen(step: Step, out: Explanation) -> None:
    """D40: weights that `fit` does not train get an update."""
    trained = {id(v) for v in step.model.trainable_variables}
    frozen = [v for v in step.model.variables if id(v) not in trained]
    handles = {id(v): v for v in frozen} | {id(v.value): v for v in frozen}
    for apply in step.applies:
        moved = [
            handles[id(v)].path
            for v, g in zip(apply.variables, apply.gradients)
            if id(v) in handles and g is not None and np.any(g)
        ]
        if moved:
            said = f"{len(moved)} variables that are not trainable get an update: {moved[0]}, ..."
            out.add(step, update_rows.D40, said, apply.at)


def inputs(step: Step, part: Part, out: Explanation) -> None:
    """What the model is called with, beside the batch."""
    if part.same_rows:
        return
    for row in forward_rows.INPUTS:
        assert row.hypothesis is not None
        evidence = row.hypothesis(step, part)
        if evidence:
            out.add(step, row, evidence, part.forwards[0].at)
            return


def forward(step: Step, seen: Seen, out: Explanation) -> Forward | None:
    """The forward pass, replayed in the way in which the loop made it."""
    replay = Forward(step.model, seen.before, seen.x)
    outputs = [o for o in seen.outputs if o.dtype.is_floating]

    def matches(replay: Forward) -> bool:
        same = len(replay.outputs) == len(outputs)
        return same and error(outputs, replay.outputs) <= step.tolerance

    if matches(replay):
        return replay
    for row in forward_rows.FORWARD:
        assert row.hypothesis is not None
        for way in row.hypothesis(step.model, seen):
            other = Forward(step.model, seen.before, seen.x, way.training, way.under)
            if matches(other):
                out.add(step, row, way.evidence, seen.at)
                return other
    out.give_up(
        f"forward pass ({seen.at}): the outputs differ by {error(outputs, replay.outputs):.2g} "
        f"from model(x, training=True) with the same x, weights and seeds",
        *forward_rows.FORWARD,
    )
    return None
