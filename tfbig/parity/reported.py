"""What a loop reports: its losses beside those that `fit` would report of the same steps."""

import dataclasses
from typing import Any

import numpy as np
import tensorflow as tf

from tfbig.parity import judging
from tfbig.parity import state as states
from tfbig.parity.causes import CATALOGUE, logs
from tfbig.parity.causes.row import found
from tfbig.parity.facts import Batch, Step
from tfbig.parity.replay import gradient
from tfbig.parity.stages import update
from tfbig.training import surgery


def of_steps(
    taken: list[Step], returned: list[Any], judged: judging.Judged, notes: list[str], own: bool
) -> None:
    """Compares the loss that the loop reports with the running mean that `fit` reports.

    A `train_step` of the model's own (`own`) is to report the mean, which Keras shows. A function
    that takes one step may report the loss of its batch.
    """
    reported = [_reported(r) for r in returned]
    if any(r is None for r in reported):
        return
    totals, penalties = _totals(taken)
    for n, (step, value) in enumerate(zip(taken, reported), start=1):
        assert value is not None
        after = _loss_after(step)
        losses = logs.Losses((len(step.batch),) * n, tuple(totals[:n]), tuple(penalties[:n]), after)
        cause = _reported_cause(losses, value, step.tolerance)
        if cause == "" or (cause == "D49" and not own):
            continue
        where = step.applies[-1].at if step.applies else None
        if cause is None:
            notes.append(f"the loop reports a loss of {value:.6g}, and fit {losses.mean():.6g}")
        else:
            said = (
                f"the loop reports {value:.6g} in step {n}, and fit's mean is {losses.mean():.6g}"
            )
            judged.causes.append(dataclasses.replace(found(CATALOGUE[cause], said, where), step=n))
        judged.number = n
        return


def of_epochs(
    steps: list[Step],
    cut: list[list],
    returned: Any,
    data: Batch,
    judged: judging.Judged,
    notes: list[str],
) -> None:
    """Compares the losses that a training reports with those that `fit` would report of it."""
    if not isinstance(returned, dict) or "loss" not in returned:
        return
    reported = np.atleast_1d(np.asarray(returned["loss"], "float64")).ravel()
    if len(reported) not in (1, len(cut)):
        return
    done = 0
    ends = []
    for of_epoch in cut:
        part = steps[done : done + len(of_epoch)]
        done += len(of_epoch)
        totals, penalties = _totals(part)
        whole = dataclasses.replace(part[-1], batch=data)
        sizes = tuple(len(step.batch) for step in part)
        ends.append(logs.Losses(sizes, tuple(totals), tuple(penalties), _loss_after(whole)))
    for number, value in enumerate(reported, start=len(cut) - len(reported)):
        losses = ends[number]
        cause = _reported_cause(losses, float(value), steps[0].tolerance)
        if cause == "":
            continue
        said = (
            f"{value:.6g} is reported for epoch {number + 1}, and fit's mean is {losses.mean():.6g}"
        )
        if cause is None:
            notes.append(said)
        else:
            judged.causes.append(found(CATALOGUE[cause], said, None))
        return


def _totals(taken: list[Step]) -> tuple[list[float], list[float]]:
    """The loss that the loop itself differentiated in each step, and the penalties that are due."""
    totals, penalties = [], []
    for step in taken:
        _, total = gradient(step.model, step.begin, step.batch)
        if len(step.gradients) == 1 and step.replicas == 1:
            scale = update.loss_scale(step.applies[0].optimizer) if step.applies else 1.0
            total = float(sum(t.sum() for t in step.gradients[0].target)) / scale
        totals.append(total)
        penalties.append(float(sum(tf.reduce_sum(p) for p in step.model.losses)))
    return totals, penalties


def _reported(returned: Any) -> float | None:
    if not isinstance(returned, dict) or "loss" not in returned:
        return None
    value = np.asarray(returned["loss"], "float64")
    return float(value) if value.ndim == 0 else None


def _reported_cause(losses: logs.Losses, value: float, tolerance: float) -> str | None:
    """The row that gives the reported value: empty where it is `fit`'s, `None` where none does."""

    def near(other: float | None) -> bool:
        return other is not None and abs(value - other) <= max(tolerance, 1e-5) * max(
            abs(other), 1e-6
        )

    if near(losses.mean()):
        return ""
    for row in logs.LOGS:
        assert row.hypothesis is not None
        if near(row.hypothesis(losses)):
            return row.id
    return None


def _loss_after(step: Step) -> float:
    """The loss of the batch after the update."""
    states.put(step.model, step.end)
    batch = step.batch
    y_pred = surgery.forward(step.model, batch.x, training=False)
    return float(
        surgery.compute_loss(
            step.model, batch.x, batch.y, y_pred, batch.sample_weight, training=False
        )
    )
