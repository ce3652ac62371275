"""What a loop reports: its losses beside those that `fit` would report of the same steps."""

import dataclasses
from typing import Any

import numpy as np
import tensorflow as tf

from tfbig.parity import judging
from tfbig.parity import state as states
from tfbig.parity.causes import logs
from tfbig.parity.causes.row import Row, found
from tfbig.parity.facts import Batch, Step
from tfbig.parity.replay import gradient
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
    losses = [
        logs.Losses(
            (len(step.batch),) * n, tuple(totals[:n]), tuple(penalties[:n]), (_loss_after(step),)
        )
        for n, step in enumerate(taken, start=1)
    ]
    values = [value for value in reported if value is not None]
    rows, first = _explained(losses, values, taken[0].tolerance)
    if rows is None:
        notes.append(f"the loop reports losses of {_list(values)}, and fit {_list(_means(losses))}")
        return
    where = taken[0].applies[-1].at if taken[0].applies else None
    for row in rows:
        if row is logs.D49 and not own:
            continue
        said = (
            f"the loop reports {values[first]:.6g} in step {first + 1}, and fit's mean is "
            f"{losses[first].mean():.6g}"
        )
        judged.causes.append(dataclasses.replace(found(row, said, where), step=first + 1))


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
        after = tuple(_loss_after(whole, size) for size in (None, 32, sizes[0]))
        ends.append(logs.Losses(sizes, tuple(totals), tuple(penalties), after))
    ends = ends[len(cut) - len(reported) :]
    values = [float(value) for value in reported]
    rows, first = _explained(ends, values, steps[0].tolerance)
    said = f"{_list(values)} are reported, and fit's means are {_list(_means(ends))}"
    if rows is None:
        notes.append(said)
    else:
        judged.causes += [found(row, said, None) for row in rows]


def _totals(taken: list[Step]) -> tuple[list[float], list[float]]:
    """The loss that the loop itself differentiated in each step, and the penalties that are due."""
    totals, penalties = [], []
    for step in taken:
        _, total = gradient(step.model, step.begin, step.batch)
        if len(step.gradients) == 1 and step.replicas == 1:
            scale = step.applies[0].scale if step.applies else 1.0
            total = float(sum(t.sum() for t in step.gradients[0].target)) / scale
        totals.append(total)
        penalties.append(float(sum(tf.reduce_sum(p) for p in step.model.losses)))
    return totals, penalties


def _reported(returned: Any) -> float | None:
    if not isinstance(returned, dict) or "loss" not in returned:
        return None
    value = np.asarray(returned["loss"], "float64")
    return float(value) if value.ndim == 0 else None


def _explained(
    losses: list[logs.Losses], values: list[float], tolerance: float
) -> tuple[tuple[Row, ...] | None, int]:
    """The rows that make all of the reported values (none where they are `fit`'s own, `None` where
    no rows do), and the first value that is not `fit`'s."""

    def near(value: float, other: float | None) -> bool:
        if other is None:
            return False
        return abs(value - other) <= max(tolerance, 1e-5) * max(abs(other), 1e-6)

    for rows, report in logs.REPORTS:
        if all(near(value, report(of_one)) for value, of_one in zip(values, losses)):
            pairs = enumerate(zip(values, losses))
            return rows, next((i for i, (v, one) in pairs if not near(v, one.mean())), 0)
    return None, 0


def _means(losses: list[logs.Losses]) -> list[float]:
    return [one.mean() for one in losses]


def _list(values: list[float]) -> str:
    return ", ".join(f"{value:.6g}" for value in values)


def _loss_after(step: Step, size: int | None = None) -> float:
    """The loss of the batch after the update, in batches of a size: as `evaluate` has it."""
    states.put(step.model, step.end)
    n = len(step.batch)
    total = 0.0
    for begin in range(0, n, size or n):
        rows = np.arange(begin, min(begin + (size or n), n))
        batch = step.batch.rows(rows)
        y_pred = surgery.forward(step.model, batch.x, training=False)
        loss = surgery.compute_loss(
            step.model, batch.x, batch.y, y_pred, batch.sample_weight, training=False
        )
        total += float(loss) * len(rows)
    return total / n
