"""The stage of the loss: its gradient by the outputs beside that of the compiled loss."""

from collections.abc import Iterable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfbig.parity.arrays import Arrays, Ledger, ledger, norm
from tfbig.parity.causes import forward as forward_rows
from tfbig.parity.causes import loss as loss_rows
from tfbig.parity.causes.row import Row
from tfbig.parity.facts import Part, Step
from tfbig.parity.replay import Forward, Head
from tfbig.parity.stages.explanation import Explanation, between, near
from tfbig.parity.stages.labels import other_labels
from tfbig.training import anatomy

# What a hypothesis raises where its shapes do not go together.
_OTHER_SHAPES = (ValueError, TypeError, tf.errors.InvalidArgumentError)


def explain(
    step: Step, part: Part, replay: Forward, deltas: Arrays, out: Explanation
) -> tuple[list[float] | None, list[float]]:
    """The factor of each head in the loop's loss, and the heads' weights."""
    batch, where = part.batch, between(part)
    heads = replay.heads(batch.y, batch.sample_weight, batch.x)
    weights = [float(head.weight) for head in heads]
    if norm(deltas) == 0:
        return _vanished(step, part, replay, heads, out), weights
    plain = _fit(replay, deltas, heads)
    if plain.error <= step.tolerance:
        return list(plain.coefficients.values()), weights
    matches = []
    for rows, variant, said in _variants(replay, heads, batch):
        result = _fit(replay, deltas, variant)
        good = result.error <= step.tolerance
        if good and all(c > 0 for c in result.coefficients.values()):
            factors = list(result.coefficients.values())
            matches.append((len(rows), not _is_one(step, part, factors), rows, said, factors))
            if not matches[-1][1]:
                break
    if matches:
        _, _, rows, said, factors = min(matches, key=lambda m: m[:2])
        for row, evidence in zip(rows, said):
            out.add(step, row, evidence, where)
        return factors, weights
    for row, evidence, factors in _besides(step, part, replay, heads, deltas):
        out.add(step, row, evidence, where)
        return factors, weights
    for rows, variant, said in _variants(replay, heads, batch, pairs=False):
        for row, evidence, factors in _besides(step, part, replay, variant, deltas, labels=False):
            out.add(step, rows[0], said[0], where)
            out.add(step, row, evidence, where)
            return factors, weights
    if anatomy.has_loss_of_an_earlier_compile(step.model):
        stale = f"the last compile() had no loss; fit still minimises {step.model.loss!r}"
        out.add(step, loss_rows.D56, stale, where)
        return None, weights
    out.give_up(
        f"loss ({where}): its gradient by the outputs differs by {plain.error:.2g} from the "
        f"compiled loss's",
        *(*loss_rows.LOSS, forward_rows.D02_INPUTS, loss_rows.D57),
    )
    return None, weights


def _vanished(
    step: Step, part: Part, replay: Forward, heads: Sequence[Head], out: Explanation
) -> list[float] | None:
    """A loss whose gradient is exactly zero: all examples beyond the clip of probabilities."""
    for rows, variant, said in _variants(replay, heads, part.batch, pairs=False):
        if all(norm(replay.deltas(head.value)) == 0 for head in variant):
            out.add(step, rows[0], said[0] + ", and it is exactly zero", between(part))
            return [_scale(step)] * len(heads)
    out.give_up(f"loss ({between(part)}): its gradient is exactly zero", *loss_rows.LOSS)
    return None


def _variants(
    replay: Forward, heads: Sequence[Head], batch: Any, pairs: bool = True
) -> Iterable[tuple[tuple[Row, ...], list[Head], list[str]]]:
    """The heads changed by each hypothesis on the loss, then by each pair."""

    def by(row: Row, heads: Sequence[Head]) -> Iterable[tuple[list[Head], str]]:
        assert row.hypothesis is not None
        with replay.tape:
            options = [row.hypothesis(head, batch) for head in heads]
        for choice in range(max(map(len, options))):
            changed = [o[choice] if choice < len(o) else (h, "") for o, h in zip(options, heads)]
            said = next(s for _, s in changed if s)
            yield [head for head, _ in changed], said
            if sum(map(bool, options)) > 1:  # one output of several
                for i, option in enumerate(options):
                    if choice < len(option):
                        yield (
                            [option[choice][0] if i == j else h for j, h in enumerate(heads)],
                            said + f" (output {i})",
                        )

    singles = [(row, changed, said) for row in loss_rows.LOSS for changed, said in by(row, heads)]
    for row, changed, said in singles:
        yield (row,), changed, [said]
    if not pairs:
        return
    for row, changed, said in singles:
        later = loss_rows.LOSS[loss_rows.LOSS.index(row) + 1 :]
        for other in later:
            if loss_rows.D67 in (row, other):
                continue
            for both, also in by(other, changed):
                yield (row, other), both, [said, also]


def _besides(
    step: Step,
    part: Part,
    replay: Forward,
    heads: list[Head],
    deltas: Arrays,
    labels: bool = True,
) -> Iterable[tuple[Row, str, list[float]]]:
    """Label smoothing of any strength, other rows' labels, an overridden compute_loss."""
    with replay.tape:
        second = [loss_rows.smoothed(head, part.batch) for head in heads]
    smooth = [i for i, head in enumerate(second) if head is not None]
    if smooth and not anatomy.has_several_losses_on_one_output(step.model):
        both = _fit(replay, deltas, [*heads, *[h for h in second if h is not None]])
        c = list(both.coefficients.values())
        sums = c[: len(heads)]
        for i, u in zip(smooth, c[len(heads) :]):
            sums[i] += u
        shares = [u / sums[i] for i, u in zip(smooth, c[len(heads) :]) if sums[i]]
        if both.error <= step.tolerance and shares and 0 < max(shares) < 1:
            said = (
                f"it is the gradient with label_smoothing={max(shares):.4g} more than the model's"
            )
            yield loss_rows.D24, said, sums
    if anatomy.has_several_losses_on_one_output(step.model):
        batch = part.batch
        with replay.tape:
            parts = anatomy.losses_by_output(
                step.model, batch.y, replay.y_pred, batch.sample_weight, all_of_them=True
            )
        every = _fit(replay, deltas, [Head(*p) for p in parts])
        if every.error <= step.tolerance:
            said = f"the loop's loss is that of {len(parts)} losses, and fit's is the first alone"
            yield loss_rows.D55, said, [float(np.mean(list(every.coefficients.values())))]
    if labels and part.same_rows:
        other = other_labels(step, part, replay, heads, deltas)
        if other is not None:
            yield forward_rows.D02_INPUTS, other[0], [other[1]] * len(heads)
    if type(step.model).compute_loss is not keras.Model.compute_loss:
        batch = part.batch
        with replay.tape:
            parts = anatomy.losses_by_output(
                step.model, batch.y, replay.y_pred, batch.sample_weight
            )
        stock = [Head(*p) for p in parts]
        result = _fit(replay, deltas, stock)
        if stock and result.error <= step.tolerance:
            said = "it is the gradient of keras.Model.compute_loss, and the model has its own"
            yield loss_rows.D58, said, [float(np.mean(list(result.coefficients.values())))]


def _fit(replay: Forward, deltas: Arrays, heads: Sequence[Head]) -> Ledger:
    """The loop's gradients by the outputs as a sum of those of heads, each times a factor."""
    try:
        columns = {str(i): replay.deltas(head.value) for i, head in enumerate(heads)}
        return ledger(deltas, columns)
    except _OTHER_SHAPES:
        return Ledger({}, float("inf"))


def _scale(step: Step) -> float:
    return step.applies[0].scale if step.applies else 1.0


def _is_one(step: Step, part: Part, factors: list[float]) -> bool:
    """Whether the factors are those of a loss as `fit` has it."""
    return any(all(near(f / _scale(step), due) for f in factors) for due in (1.0, part.share))
