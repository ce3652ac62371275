"""The stage of the tape: the gradient of the weights that follows from the loop's own loss."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from tfbig.parity import state as states
from tfbig.parity.arrays import Arrays, error, ledger, norm, plus, total, without
from tfbig.parity.causes import scale as scale_rows
from tfbig.parity.causes import update as update_rows
from tfbig.parity.facts import Part, Step
from tfbig.parity.replay import Forward
from tfbig.parity.stages.explanation import Explanation, between


def explain(
    step: Step, part: Part, replays: Sequence[Forward], out: Explanation
) -> list[float | None]:
    """How often each entry of `model.losses` is in the loop's loss; `None` where it is unknown."""
    raw = step.by_variable(part.gradient.values, part.gradient.sources)
    if not replays:
        return []
    flows = []
    for replay, seen in zip(replays, part.forwards):
        flows.append(replay.backward(part.gradient.deltas_of(seen)))
    flow = [total(column) for column in zip(*flows)]
    penalties = replays[-1].penalty_gradients()
    lost = _lost(step, part, raw, flow)
    if lost:
        row = update_rows.D39 if len(lost) == len(raw) else update_rows.D38
        asked = {step.index(s) for s in part.gradient.sources}
        reason = "not among the variables that the tape is asked for"
        first = lost[0]
        if first in asked:
            reason = "its gradient is None" if raw[first] is None else "its gradient is zero"
        path = step.model.trainable_variables[first].path
        said = f"{len(lost)} of {len(raw)} variables, {path} the first: {reason}"
        out.add(step, row, said, part.gradient.at)
        raw, flow = without(raw, lost), without(flow, lost)
        penalties = [without(p, lost) for p in penalties]
    size = norm(raw)
    if type(step.model).compute_loss is not keras.Model.compute_loss:
        beyond = replays[-1].beyond_outputs(part.batch)
        if norm(beyond) > 10 * step.tolerance * norm(flow):
            penalties.append(without(beyond, lost))
    seen_penalties = {str(i): p for i, p in enumerate(penalties) if norm(p) > 0}
    rest = [total([r, None if f is None else -f]) for r, f in zip(raw, flow)]
    result = ledger(rest, seen_penalties)
    counts = result.coefficients
    predicted = plus(flow, [(counts[name], seen_penalties[name]) for name in counts])
    # Of a penalty that is below the noise it cannot be told how often it is there.
    counts = {
        name: c
        for name, c in counts.items()
        if step.tolerance * size < max(1.0, abs(c)) * norm(seen_penalties[name])
    }
    if error(raw, predicted) <= step.tolerance:
        return [counts.get(str(i)) for i in range(len(penalties))]
    return _decayed(step, part, raw, predicted, counts, len(penalties), out)


def _decayed(
    step: Step,
    part: Part,
    raw: Arrays,
    predicted: Arrays,
    counts: Any,
    number: int,
    out: Explanation,
) -> list[float | None]:
    """A regularisation that the loop adds by itself: what is left over lies along the weights."""
    weights = states.trainable(step.model, part.forwards[0].before)
    rest = [total([r, None if p is None else -p]) for r, p in zip(raw, predicted)]
    for name, of in (("weights", lambda w: w), ("signs of the weights", np.sign)):
        columns = {
            str(i): [of(w) if i == j else None for j, w in enumerate(weights)]
            for i in range(len(weights))
            if rest[i] is not None and norm([rest[i]]) > step.tolerance * norm([raw[i]])
        }
        found_ = ledger(rest, columns)
        more = plus(predicted, [(found_.coefficients[n], columns[n]) for n in columns])
        if columns and error(raw, more) <= 3 * step.tolerance:
            worst = max(found_.coefficients.values(), key=abs)
            said = f"what the loop adds lies along the {name}, {worst:.4g} of them, on "
            said += ", ".join(step.model.trainable_variables[int(n)].path for n in columns)
            out.add(step, scale_rows.D03, said, between(part))
            return [counts.get(str(i)) for i in range(number)]
    out.give_up(
        f"gradient ({part.gradient.at}): it differs by {error(raw, predicted):.2g} from the one "
        f"that follows from the loop's own loss",
        *(scale_rows.D03, scale_rows.D04, scale_rows.D05, update_rows.D38),
    )
    return [None] * number


def _lost(step: Step, part: Part, raw: Arrays, flow: Arrays) -> list[int]:
    size = norm(flow)
    return [
        i
        for i, (r, f) in enumerate(zip(raw, flow))
        if norm([f]) > 1e-5 * size and (r is None or not np.any(r))
    ]
