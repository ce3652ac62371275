"""The stage between the tape and the optimizer: by which numbers the gradient is multiplied."""

from collections.abc import Sequence

import numpy as np

from tfbig.parity.arrays import error, ledger, plus
from tfbig.parity.causes import loss as loss_rows
from tfbig.parity.causes import scale as scale_rows
from tfbig.parity.causes import update as update_rows
from tfbig.parity.causes.row import Row
from tfbig.parity.facts import Part, Step
from tfbig.parity.stages import handover
from tfbig.parity.stages.explanation import Explanation, PartResult, between, near
from tfbig.training import anatomy


def explain(
    step: Step, parts: Sequence[Part], results: Sequence[PartResult], out: Explanation
) -> list[np.ndarray | None]:
    """What is applied, unscaled; explains by which factors it is made of the tape's gradients."""
    where = step.applies[0].at if step.applies else parts[-1].gradient.at
    raws = [r.raw for r in results]
    scale, applied = handover.given(step)
    if applied is None:  # by hand: what the tape returned is what is used
        applied, scale = plus([None] * len(raws[0]), [(1.0, r) for r in raws]), 1.0
    columns = {str(j): raw for j, raw in enumerate(raws)}
    sums = ledger(applied, columns)
    shares = list(sums.coefficients.values())
    made = plus([None] * len(applied), list(zip(shares, raws)))
    if error(applied, made) > step.tolerance:
        shares = [1.0] * len(parts) if len(parts) == 1 else [p.share for p in parts]
        made = plus([None] * len(applied), list(zip(shares, raws)))
        if not handover.explain(step, made, applied, where, out):
            return [None if g is None else g / scale for g in applied]
    elif len(parts) == 1:
        shares = [float(np.round(shares[0], 12))]
    _factors(step, parts, results, shares, scale, out)
    return [None if g is None else g / scale for g in applied]


def _factors(
    step: Step,
    parts: Sequence[Part],
    results: Sequence[PartResult],
    shares: Sequence[float],
    scale: float,
    out: Explanation,
) -> None:
    """Names the factors by which the loop's gradient is not `fit`'s."""
    where = between(parts[0])
    slack = max(1e-3, 3 * step.tolerance)
    whole = None
    if all(r.factors is not None for r in results):
        # In units of what fit has: 1 where all is well.
        units = [
            [f * c / (scale * part.share) for f in r.factors or []]
            for r, c, part in zip(results, shares, parts)
        ]
        per_part = [_by_head(step, u, r.weights, slack, where, out) for u, r in zip(units, results)]
        if all(near(u, per_part[0], slack) for u in per_part):
            whole = per_part[0]
            _by_scale(step, parts[0], whole, slack, where, out)
        else:
            absolute = [u * part.share for u, part in zip(per_part, parts)]
            if all(near(a, absolute[0], slack) for a in absolute):
                sizes = ", ".join(str(len(part.batch)) for part in parts)
                if near(absolute[0], 1 / len(parts), slack):
                    said = f"micro-batches of {sizes} examples count the same"
                    out.add(step, scale_rows.D14, said, where)
                else:
                    said = f"each of {len(parts)} micro-batches ({sizes}) counts {absolute[0]:.4g}"
                    out.add(step, scale_rows.D13, said, where)
            else:
                said = ", ".join(f"{u:.4g}" for u in per_part)
                out.give_up(f"the parts of the batch count {said} times fit's share")
    _penalties(step, results, shares, scale, whole, slack, where, out)


def _by_scale(
    step: Step, part: Part, factor: float, slack: float, where: str | None, out: Explanation
) -> None:
    if near(factor, 1.0, slack):
        return
    hits = [
        (abs(value / factor - 1), i, row, said)
        for i, row in enumerate(scale_rows.SCALE)
        for value, said in (row.hypothesis(step, part) if row.hypothesis else [])
        if near(factor, value, slack)
    ]
    if hits:
        # The closest; among equals the first.
        best = min(hits, key=lambda hit: (round(hit[0], 5), hit[1]))
        row, said = best[2], best[3]
        others = sorted({r.id for d, _, r, _ in hits if r is not row and d < 1e-5})
        if others:
            said += f" (this batch does not tell it from {', '.join(others)})"
        out.add(step, row, f"every gradient is {factor:.6g} times fit's: {said}", where)
        return
    pairs = [
        (row, said, other, also)
        for i, row in enumerate(scale_rows.SCALE)
        for value, said in (row.hypothesis(step, part) if row.hypothesis else [])
        for other in scale_rows.SCALE[i + 1 :]
        for second, also in (other.hypothesis(step, part) if other.hypothesis else [])
        if near(factor, value * second, 1e-4)
    ]
    if len({(row.id, other.id) for row, _, other, _ in pairs}) == 1:
        row, said, other, also = pairs[0]
        out.add(step, row, f"every gradient is {factor:.6g} times fit's: {said}; {also}", where)
        out.add(step, other, f"every gradient is {factor:.6g} times fit's: {said}; {also}", where)
        return
    if step.constant_norm is not None and factor < 1:
        said = f"what is applied has the norm {step.constant_norm:.6g} in every step"
        out.add(step, update_rows.D30, said, step.applies[0].at)
        return
    out.give_up(
        f"every gradient is {factor:.6g} times fit's (cosine 1), which is no count of examples, "
        f"places, weights, micro-batches or replicas",
        *scale_rows.SCALE,
    )


def _by_head(
    step: Step,
    units: Sequence[float],
    weights: Sequence[float],
    slack: float,
    where: str | None,
    out: Explanation,
) -> float:
    """The factor of all outputs; loss weights (D57) where it differs from output to output."""
    if max(units) - min(units) <= slack * abs(max(units)):
        return float(np.mean(units))
    used = [u * w for u, w in zip(units, weights)]
    said = ", ".join(f"{u:.4g}" for u in used) + " are the weights of the outputs in the loop, "
    said += ", ".join(f"{w:.4g}" for w in weights) + " in the model"
    ratio = sum(used) / sum(weights)
    if all(near(u, used[0], slack) for u in used):
        out.add(step, loss_rows.D57, said, where)
        return used[0]
    if all(near(a, b * ratio, slack) for a, b in zip(sorted(used), sorted(weights))):
        out.add(step, loss_rows.D57, said, where)
        return ratio
    if any(abs(u) < 1e-6 for u in units):
        out.add(step, loss_rows.D57, said + ": an output is left out", where)
        return 1.0
    odd = [u for u in units if not near(u, 1.0, slack)]
    if all(near(u, odd[0], slack) for u in odd):
        return odd[0]  # one output is summed, and the other is not
    out.add(step, loss_rows.D57, said, where)
    return 1.0


def _penalties(
    step: Step,
    results: Sequence[PartResult],
    shares: Sequence[float],
    scale: float,
    whole: float | None,
    slack: float,
    where: str | None,
    out: Explanation,
) -> None:
    counts = [r.penalties for r in results]
    if not counts or any(len(c) != len(counts[0]) for c in counts):
        return
    loose = max(0.02, slack)
    due = [1.0] if whole is None else [1.0, whole]
    missing: dict[Row, list[str]] = {}
    for i, (row, name) in enumerate(_entries(step, len(counts[0]))):
        if any(c[i] is None for c in counts):
            continue  # below the noise
        times = sum(share * (c[i] or 0.0) for share, c in zip(shares, counts)) / scale
        twice = [2 * d for d in due] + ([float(len(results))] if len(results) > 1 else [])
        if any(near(times, d, loose) for d in due):
            continue
        if abs(times) <= loose:
            missing.setdefault(row, []).append(f"{name} counts {abs(times):.3f} times")
        elif any(near(times, t, loose) for t in twice):
            said = f"{name} counts {times:.3f} times in the loop, not once"
            out.add(step, scale_rows.D04, said, where)
        else:
            out.give_up(f"{name} counts {times:.4g} times in the loop, not once")
    for row, names in missing.items():
        out.add(step, row, f"{', '.join(names)} in the loop, not once", where)


def _entries(step: Step, number: int) -> list[tuple[Row, str]]:
    """For each penalty the row that it is if it is missing, and its name: those that layers add,
    those of regularizers, and what an overridden `compute_loss` adds."""
    losses = len(step.model.losses)
    added = losses - anatomy.count_weight_penalties(step.model)
    rows = [scale_rows.D05] * added + [scale_rows.D03] * (losses - added)
    entries = [(row, f"entry {i} of model.losses") for i, row in enumerate(rows, start=1)]
    own = (loss_rows.D58, f"what {type(step.model).__name__}.compute_loss adds")
    return [*entries, *[own] * (number - losses)]
