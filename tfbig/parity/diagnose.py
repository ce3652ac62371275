"""diagnose: why does a hand-written loop not do what `model.fit` does?

    print(tfbig.parity.diagnose(model, x, y, loop=my_step))

Stock `fit` and the loop run from one state. The loop runs eagerly and is watched: every call of the
model, every gradient, every update, with its line. Then each stage of each step is replayed as
`fit` takes it from what the loop had (`explain.py`), and where it differs the causes of the
catalogue (`causes/`) are replayed until one reproduces the loop's numbers, within ten times the
noise, which is measured. What reproduces nothing is not named.

Limits: variables of the loop's own (metrics, averages) are not put back. A loop that draws random
numbers of its own differs by them.
"""

from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfbig.parity import epochs as trainings
from tfbig.parity import judging, reported, run
from tfbig.parity import state as states
from tfbig.parity.arrays import error, norm
from tfbig.parity.diagnosis import Diagnosis
from tfbig.parity.facts import Batch, Step
from tfbig.parity.parting import parting
from tfbig.parity.replay import gradient
from tfbig.training import anatomy, surgery
from tfbig.training import step as our_step

# With fewer examples one cause may give the numbers of another.
FEW = 6


def diagnose(
    model: keras.Model,
    x: Any,
    y: Any = None,
    sample_weight: Any = None,
    *,
    class_weight: dict[int, float] | None = None,
    loop: Callable | None = None,
    train: Callable | None = None,
    steps: int = 3,
    epochs: int = 2,
    batch_size: int = 32,
    shuffle: bool = True,
) -> Diagnosis:
    """Names the causes for which a hand-written loop differs from `model.fit`.

    Args:
        model: a compiled Keras model; it is left as it was, its optimizer too.
        x, y, sample_weight: one batch for a `loop`; all the examples for a `train`, for which `x`
            may be a `tf.data.Dataset` of batches.
        class_weight: as `fit` takes it. What the loop gets as `sample_weight` includes it, as what
            `fit` hands to a step does.
        loop: takes one step on a batch: `(model, x, y, sample_weight)`; see `run.caller` for other
            forms. It may be a `tf.function`, apply with an optimizer of its own, and return logs.
            Without a loop the model's own `train_step` is diagnosed, or tfbig's.
        train: a whole training, `(model, x, y, epochs) -> logs`, for what shows over epochs only.
            Logs are a dict of lists with a value for each epoch, as in `History`.
        steps: how often the batch is replayed. Three, so that slots and averages move.
        epochs, batch_size, shuffle: of `train` and of `fit` beside it.

    Returns:
        The diagnosis; `causes` is empty for a correct loop.

    Raises:
        ValueError: if the model is not compiled; `LoopError`, one of these, if the loop raises.

    >>> import tensorflow as tf
    >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> def step(model, x, y, sample_weight):
    ...     with tf.GradientTape() as tape:
    ...         loss = tf.reduce_sum((model(x, training=True) - y) ** 2)
    ...     gradients = tape.gradient(loss, model.trainable_variables)
    ...     model.optimizer.apply_gradients(zip(gradients, model.trainable_variables))
    >>> x = np.random.default_rng(0).normal(size=(7, 3))
    >>> [cause.id for cause in diagnose(model, x, x[:, :1] + 1, loop=step).causes]
    ['D11']
    """
    for function in (loop, train):
        if function is not None and not callable(function):
            raise ValueError(f"A loop is a function, and {function!r} was given.")
    for name, number in (("steps", steps), ("epochs", epochs), ("batch_size", batch_size)):
        if number < 1:
            raise ValueError(f"{name} is {number}; at least 1 is expected.")
    if loop is not None and train is not None:
        raise ValueError("Give a loop, which takes one step, or a train, which takes all.")
    _check_data(x, train is not None)
    if train is not None:
        return trainings.diagnose_training(
            model, x, y, sample_weight, class_weight, train, epochs, batch_size, shuffle
        )
    states.build(model, x, y, sample_weight)
    batch = judging.batch_of(x, y, sample_weight, class_weight)
    given = x, y, sample_weight
    reference, tolerance, notes = judging.reference_of(model, given, class_weight, batch)
    if len(batch) < FEW:
        notes.append(f"{len(batch)} examples tell little apart: give a batch of {FEW} or more")
    call = _ours(model) if loop is None else run.caller(loop)
    with states.unchanged(model):
        taken, returned, seen = run.steps(model, call, batch, steps, tolerance)
        judged = judging.judge(taken)
        reported.of_steps(taken, returned, judged, notes, own=loop is None)
        first = judged.number == 1
        table = judging.table_of(taken[judged.number - 1], reference if first else None)
        if reference is None and not judged.causes:
            table = None  # fit and the loop leave this step out: there is nothing to compare
        parted = None
        if judged.unexplained:
            parted = parting(taken[judged.number - 1], call)
        seen.restore_own_optimizers()
    if not judged.causes and not judged.unexplained and loop is not None:
        with states.unchanged(model):
            _compiled(model, call, batch, taken, judged, notes)
            seen.restore_own_optimizers()
    return judging.diagnosis(judged, parted, notes, table)


def _check_data(x: Any, dataset: bool) -> None:
    """Data that can be given twice: arrays, and a dataset where a whole training runs."""
    if dataset and isinstance(x, tf.data.Dataset):
        return
    kinds = (tf.data.Dataset, keras.utils.PyDataset, Iterator)
    if isinstance(x, kinds) or x is None:
        wanted = "arrays or a tf.data.Dataset" if dataset else "one batch, such as next(iter(data))"
        raise ValueError(
            f"x is a {type(x).__name__}, which cannot be given to fit and to the loop alike: give "
            f"{wanted}."
        )


def _ours(model: keras.Model) -> Callable[[keras.Model, Batch], Any]:
    def call(model: keras.Model, batch: Batch) -> Any:
        data = keras.utils.pack_x_y_sample_weight(batch.x, batch.y, batch.sample_weight)
        if surgery.overrides_train_step(model):
            return model.train_step(data)
        return our_step.train_step(model, data)

    return call


def _compiled(
    model: keras.Model,
    call: Callable,
    batch: Batch,
    taken: list[Step],
    judged: judging.Judged,
    notes: list[str],
) -> None:
    """Runs the loop as it is, and compares with the same loop run eagerly."""
    begin = taken[0].begin
    gradients, _ = gradient(model, begin, batch)
    size = norm(gradients)
    real = [i for i, g in enumerate(gradients) if norm([g]) > 1e-5 * size]
    start = states.trainable(model, begin)

    def moved(end: states.State) -> list[np.ndarray]:
        weights = states.trainable(model, end)
        return [weights[i].astype("float64") - start[i] for i in real]

    eager = moved(taken[-1].end)
    states.put(model, begin)
    for _ in taken:
        call(model, batch)
    difference = error(eager, moved(states.take(model)))
    if difference <= (0.3 if states.in_half_precision(model) else 0.05):
        if difference:
            rows = "D52, or D53 in a recurrent layer" if anatomy.is_recurrent(model) else "D52"
            said = f"compiled and eager differ by {difference:.1g}, which is rounding"
            notes.append(f"{said}: harmless [{rows}]")
        return
    states.put(model, begin)
    again, _, seen = run.steps(model, call, batch, len(taken), taken[0].tolerance)
    seen.restore_own_optimizers()
    if error(eager, moved(again[-1].end)) > 0.05:
        notes.append(
            "the loop keeps something of its own from one run to the next (an average, a speed, "
            "a random number): run again from the same weights it moves them otherwise"
        )
        return
    judged.give_up(
        f"the loop as it is (compiled) moves the weights otherwise, by {difference:.2g}, than "
        f"the same loop run eagerly: look for what its tf.function froze when it was traced "
        f"(Python numbers, variables made inside, a model or an optimizer that was replaced)"
    )
