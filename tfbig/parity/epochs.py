"""A whole training beside `fit`: what shows over epochs only, and every step of it."""

import contextlib
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfbig import compat
from tfbig.compat import v27_same_order
from tfbig.parity import judging, reported, run
from tfbig.parity import state as states
from tfbig.parity.causes import epoch
from tfbig.parity.causes.row import Cause, found
from tfbig.parity.diagnosis import Diagnosis
from tfbig.training import anatomy

MOST_STEPS = 150  # of a whole training that are looked at


def diagnose_training(
    model: keras.Model,
    x: Any,
    y: Any,
    sample_weight: Any,
    class_weight: dict | None,
    train: Callable,
    epochs: int,
    batch_size: int,
    shuffle: bool,
) -> Diagnosis:
    """A whole training beside `fit`."""
    dataset = x if isinstance(x, tf.data.Dataset) else None
    all_x, all_y, all_weight = run.to_arrays(dataset) if dataset else (x, y, sample_weight)
    if dataset is not None:
        batch_size = states.size(next(iter(dataset))[0])
    head = keras.tree.map_structure(
        lambda leaf: None if leaf is None else leaf[:batch_size], (all_x, all_y, all_weight)
    )
    states.build(model, *head)
    data = judging.batch_of(all_x, all_y, all_weight, class_weight)
    first = data.rows(np.arange(min(batch_size, len(data))))
    _, tolerance, notes = judging.reference_of(model, head, class_weight, first)
    iterations = model.optimizer.iterations
    with states.unchanged(model):
        before = int(iterations)
        given = {} if dataset is not None else {
            "y": y,
            "sample_weight": sample_weight,
            "batch_size": batch_size,
            "shuffle": shuffle,
        }  # fmt: skip
        with _without_warnings(), anatomy.stock_steps(model):
            model.fit(x, epochs=epochs, class_weight=class_weight, verbose=0, **given)
        fit_steps = int(iterations) - before
    with states.unchanged(model):
        taken, returned, seen = run.training(
            model, train, data, (x, y), epochs, tolerance, dataset is not None
        )
        cut = run.epochs_of([rows or () for _, rows in taken], epochs)
        visits = epoch.Visits(
            tuple(map(tuple, cut)), len(data), batch_size, shuffle and dataset is None
        )
        steps = [step for step, _ in taken[:MOST_STEPS]]
        if not steps:
            raise run.LoopError(
                "The training took no step that could be seen: it calls neither the model under a "
                "tf.GradientTape nor its optimizer."
            )
        judged = judging.judge(steps)
        causes: list[Cause] = []
        where = steps[0].forwards[0].at
        # Over a dataset both go in its own order.
        if dataset is None and all(rows is not None for _, rows in taken):
            for row in epoch.EPOCHS:
                assert row.hypothesis is not None
                said = row.hypothesis(visits)
                if said and row is epoch.D46 and v27_same_order.seeded() and compat.present("V27"):
                    notes.append(f"{said}; so does stock fit once a seed is set (V27)")
                elif said and all(c.id != row.id for c in causes):
                    causes.append(found(row, said, where))
        per_epoch = sum(map(len, cut)) // max(len(cut), 1)
        if dataset is not None and fit_steps == (per_epoch + 1) * epochs:
            said = f"fit counts {fit_steps} steps for {per_epoch} batches in {epochs} epochs"
            causes.append(found(epoch.D66, said, None))
        if len(steps) == len(taken):
            reported.of_epochs(steps, cut, returned, data, judged, notes)
        table = judging.table_of(steps[judged.number - 1], None)
        seen.restore_own_optimizers()
    judged.causes = [*judged.causes, *causes]
    return judging.diagnosis(judged, None, notes, table)


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that data of unknown length came to an end
        yield
