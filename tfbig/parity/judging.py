"""Judges the steps of a loop: the reference, the noise, every step explained, the table."""

import dataclasses
import warnings
from typing import Any

import keras
import tensorflow as tf

from tfbig.parity import state as states
from tfbig.parity.arrays import error, norm
from tfbig.parity.compare import fit_gradients
from tfbig.parity.diagnosis import Diagnosis
from tfbig.parity.explain import Explanation, explain
from tfbig.parity.facts import Batch, Step
from tfbig.parity.observe import loss_scale
from tfbig.parity.replay import gradient
from tfbig.parity.replay import update as replay_update
from tfbig.parity.report import Report, rows
from tfbig.parity.stages import handover, update
from tfbig.training import anatomy


class Judged(Explanation):
    """An explanation, and the step that it is of."""

    number: int = 1


def diagnosis(
    judged: Judged, parted: str | None, notes: list[str], table: Report | None
) -> Diagnosis:
    """The diagnosis that follows; what was ruled out is told where something is unexplained."""
    named = {cause.id for cause in judged.causes}
    ruled_out = tuple(sorted(set(judged.tried) - named))
    said = (*judged.notes, *notes)
    return Diagnosis(
        tuple(judged.causes), tuple(judged.unexplained), parted, ruled_out, said, table
    )


def batch_of(x: Any, y: Any, sample_weight: Any, class_weight: dict | None) -> Batch:
    """What the loop is given: tensors, with class weights in the sample weights."""
    x, y, own = states.tensors(x, y, sample_weight)
    weight = own
    if class_weight is not None:
        weight = anatomy.class_weight_to_sample_weight(y, class_weight)
        weight = weight if own is None else weight * tf.cast(own, weight.dtype)
        (weight,) = states.tensors(weight)
    return Batch(x, y, weight, own)


def reference_of(
    model: keras.Model, given: tuple, class_weight: dict | None, batch: Batch
) -> tuple[list | None, float, list[str]]:
    """`fit`'s gradients on `given`, `(x, y, sample_weight)`; the tolerance, ten times what they
    differ by from a replay's; and notes. `None` for gradients if `fit` leaves the step out."""
    with states.unchanged(model), anatomy.stock_steps(model):
        begin = states.take(model)
        reference = None
        try:
            x, y, weight = given
            reference = fit_gradients(model, x, y, weight, class_weight=class_weight)
        except ValueError as raised:
            # A gradient that is not finite in half precision: fit leaves the step out.
            scaled = loss_scale(model.optimizer) != 1
            if not scaled or "model.fit never applied" not in str(raised):
                raise
        replayed, _ = gradient(model, begin, batch)
    if reference is None:
        return None, 2e-2, ["fit leaves this step out: its scaled gradient is not finite"]
    half = states.in_half_precision(model)
    floor = max(error(reference, replayed), 2e-3 if half else 1e-6)
    notes = []
    if floor > (5e-2 if half else 1e-3):
        notes.append(
            f"fit's gradient differs by {floor:.2g} from the same model's in a replay: the model "
            f"is not deterministic, reads more than its weights and seeds, or has replicas that "
            f"draw and normalise by themselves"
        )
        floor = 5e-2 if half else 1e-3
    return reference, 10 * floor, notes


def judge(taken: list[Step]) -> Judged:
    """Every step explained; a step is judged from the loop's own state, so a fault in one does not
    make the next one wrong."""
    judged = Judged()
    slots = taken[0].begin.slots
    constant = _constant_norm(taken)
    for step in taken:
        step = dataclasses.replace(step, slots=slots, constant_norm=constant)
        taken[step.number - 1] = step
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what Keras says of a hypothesis is not of the loop
            explanation = explain(step, update_only=judged.gradient_differs)
        judged.gradient_differs |= explanation.gradient_differs
        if not judged.causes and not judged.unexplained:
            judged.number = step.number
            judged.unexplained, judged.tried = explanation.unexplained, explanation.tried
        judged.notes += [note for note in explanation.notes if note not in judged.notes]
        known = {cause.id for cause in judged.causes}
        judged.causes += [c for c in explanation.causes if c.id not in known]
        # What fit's optimizer would have by now, if the loop has one of its own or none.
        slots = step.end.slots
        if not step.applies or step.applies[0].optimizer is not step.model.optimizer:
            given = update.given_to_fit(step, handover.unscaled(step))
            if any(g is not None for g in given):
                replay_update(step.model, step.before_fit, given)
                slots = states.take(step.model).slots
    if not judged.causes and not judged.unexplained:
        judged.number = 1
    return judged


def _constant_norm(taken: list[Step]) -> float | None:
    """The norm of what is applied, where it is the same in all steps: a sign of clipping."""
    norms = [norm(handover.unscaled(step)) for step in taken if step.applies]
    if len(norms) < 2 or not all(abs(n - norms[0]) <= 1e-5 * norms[0] for n in norms):
        return None
    return norms[0]


def table_of(step: Step, reference: list | None) -> Report | None:
    """`fit`'s gradients and the loop's, in the step that was judged."""
    if not step.applies and not step.gradients:
        return None
    if reference is None:
        reference, _ = gradient(step.model, step.begin, step.batch)
    unscaled = handover.unscaled(step)
    paths = [v.path for v in step.model.trainable_variables]
    return Report(rows(paths, reference, unscaled), step.tolerance)
