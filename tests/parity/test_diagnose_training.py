"""Whole trainings: the order of the examples, the number of steps, the losses that are reported."""

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.parity import loops
from tests.parity.loops import RATE, by_hand, dense
from tfbig.parity import diagnose

ROWS, BATCH, EPOCHS = 27, 8, 2  # batches of 8, 8, 8 and 3
_RNG = np.random.default_rng(8)
X = _RNG.normal(size=(ROWS, loops.FEATURES)).astype("float32")
Y = (X[:, :1] * 2 + 0.3).astype("float32")


def shuffled(rng, epoch):
    return rng.permutation(ROWS)


def ordered(rng, epoch):
    return np.arange(ROWS)


def once(rng, epoch):
    return np.random.default_rng(5).permutation(ROWS)


def buffered(rng, epoch):
    """As `dataset.shuffle(3)` has it."""
    return np.array(list(tf.data.Dataset.range(ROWS).shuffle(3).as_numpy_iterator()))


def weighted_mean(model, values, sizes):
    return float(np.average(values, weights=sizes))


def training(order=shuffled, size=BATCH, drop=False, report=weighted_mean, step=None, begin=None):
    """A training by hand. `report` makes an epoch's loss; `begin` is called with each epoch."""
    step = step or by_hand()

    def train(model, x, y, epochs):
        rng, history = np.random.default_rng(0), {"loss": []}
        for epoch in range(epochs):
            values, sizes = [], []
            if begin is not None:
                begin(model)
            rows = order(rng, epoch)
            rows = rows[: len(rows) // size * size] if drop else rows
            for i in range(0, len(rows), size):
                chosen = rows[i : i + size]
                values.append(step(model, tf.constant(x[chosen]), tf.constant(y[chosen]))["loss"])
                sizes.append(len(chosen))
            history["loss"].append(report(model, values, sizes))
        return history

    return train


def diagnosed(train, model=None, shuffle=True, **options):
    return diagnose(
        model or dense(), X, Y, train=train, epochs=EPOCHS, batch_size=BATCH, shuffle=shuffle,
        **options,
    )  # fmt: skip


def own_optimizer(anew):
    """Momentum, by an optimizer that is made once, or anew in each epoch."""
    model = dense(optimizer=keras.optimizers.SGD(RATE, momentum=0.9))
    current = [loops.twin(model)]

    def update(model, gradients, variables):
        current[0].apply_gradients(zip(gradients, variables))

    def begin(model):
        if anew and int(current[0].iterations):
            current[0] = loops.twin(model)

    return training(step=by_hand(update=update), begin=begin), model


def dropping():
    return dense(
        between=[keras.layers.Dropout(0.3, seed=2)],
        kernel_regularizer="l2",
        optimizer=keras.optimizers.Adam(RATE),
    )


def means_of_a_metric():
    """Logs as lists, of numbers that are tensors; the step is a `tf.function`."""
    step, mean = tf.function(by_hand(), reduce_retracing=True), keras.metrics.Mean()

    def train(model, x, y, epochs):
        history = {"loss": [], "other": []}
        data = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(ROWS).batch(BATCH)
        for _ in range(epochs):
            mean.reset_state()
            for batch in data:
                mean.update_state(step(model, *batch)["loss"], sample_weight=len(batch[0]))
            history["loss"].append(mean.result())
            history["other"].append(tf.constant(0.0))
        return history

    return train


RIGHT = {
    "shuffled": lambda: (training(), dropping(), True),
    "in order": lambda: (training(ordered), dropping(), False),
    "own optimizer": lambda: (*own_optimizer(anew=False), True),
    "dataset, metric, graph": lambda: (means_of_a_metric(), dense(), True),
    "no logs": lambda: (lambda *a: training()(*a) and None, dense(), True),
    "logs without loss": lambda: (lambda *a: {"mae": training()(*a)["loss"]}, dense(), True),
    "the last loss alone": lambda: (lambda *a: {"loss": training()(*a)["loss"][-1]}, dense(), True),
}


@pytest.mark.parametrize("name", RIGHT)
def test_a_right_training_gives_no_cause(name):
    train, model, shuffle = RIGHT[name]()
    report = diagnosed(train, model, shuffle)
    assert report.matches, str(report)


def test_numbers_of_one_kind_may_come_as_an_array():
    report = diagnosed(lambda *a: {"loss": np.array(training()(*a)["loss"])})
    assert report.matches, str(report)


def last(model, values, sizes):
    return float(values[-1])


def plain_mean(model, values, sizes):
    return float(np.mean(values))


def evaluated(model, values, sizes):
    return model.evaluate(X, Y, verbose=0, return_dict=True)["loss"]


NOT_REGULAR = by_hand(loops.mse, logs=lambda whole, data: {"loss": data})
FAULTS = {
    "D44": (training(ordered), "in the order of the data in every epoch"),
    "D44 small buffer": (training(buffered), f"after a full shuffle it is {ROWS / 3:.1f}"),
    "D45": (training(drop=True), f"{ROWS - ROWS % BATCH} of {ROWS} rows"),
    "D45 size": (training(size=9), f"batches of 9 rows, and fit has batches of {BATCH}"),
    "D46": (training(once), f"one order in all of {EPOCHS} epochs"),
    "D48": (training(report=evaluated), "are reported, and fit's means are"),
    "D49": (training(report=last), "are reported, and fit's means are"),
    "D50": (training(report=plain_mean), "are reported, and fit's means are"),
    "D51": (training(step=NOT_REGULAR), "are reported, and fit's means are"),
    "D11": (training(step=by_hand(loops.summed)), f"{BATCH} times"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_of_a_training_is_named(name):
    if name == "D46":
        tf.random.set_seed(None)  # With a seed stock `fit` has one order too (V27).
    train, evidence = FAULTS[name]
    report = diagnosed(train, loops.regular() if name == "D51" else dense())
    assert [cause.id for cause in report.causes] == name.split()[:1], str(report)
    assert not report.unexplained and evidence in report.causes[0].evidence
    if name in ("D44", "D45", "D46", "D11"):
        file = report.causes[0].where.rsplit(":", 1)[0]
        assert Path(file).resolve() == Path(loops.__file__)


def test_the_numbers_of_the_reported_losses():
    """What is said are the losses that the training itself computed."""
    seen = []

    def both(model, values, sizes):
        seen.append((float(values[-1]), weighted_mean(model, values, sizes)))
        return seen[-1][0]

    (cause,) = diagnosed(training(report=both)).causes
    reported, means = (
        [float(word.rstrip(",")) for word in text.split() if word[0].isdigit()]
        for text in cause.evidence.split("fit's")
    )
    assert cause.id == "D49" and len(seen) == EPOCHS
    assert reported == pytest.approx([last for last, _ in seen], rel=1e-4)
    assert means == pytest.approx([mean for _, mean in seen], rel=1e-4)


def test_a_loop_that_shuffles_where_fit_does_not():
    report = diagnosed(training(), shuffle=False)
    assert [cause.id for cause in report.causes] == ["D44"]
    assert report.causes[0].mend == "fit(..., shuffle=True)"


def test_an_optimizer_that_is_made_anew_in_each_epoch():
    train, model = own_optimizer(anew=True)
    report = diagnosed(train, model)
    assert [cause.id for cause in report.causes] == ["D36"], str(report)
    assert report.causes[0].step == 5  # the first of the second epoch
    assert not report.unexplained


def over(dataset):
    """A right training on a dataset."""

    def train(model, x, y, epochs):
        history = {"loss": []}
        for _ in range(epochs):
            values, sizes = [], []
            for batch in x:
                values.append(by_hand()(model, *batch)["loss"])
                sizes.append(len(batch[0]))
            history["loss"].append(weighted_mean(model, values, sizes))
        return history

    model = dense(optimizer=keras.optimizers.SGD(RATE, weight_decay=0.1))
    return diagnose(model, dataset, train=train, epochs=EPOCHS)


def test_a_dataset_of_unknown_length():
    """D66: fit takes a step without data in each epoch (V26); the loop is right."""
    dataset = tf.data.Dataset.from_tensor_slices((X, Y)).batch(BATCH)
    report = over(dataset.filter(lambda x, y: True))
    assert [cause.id for cause in report.causes] == ["D66"], str(report)
    assert f"{5 * EPOCHS} steps for 4 batches in {EPOCHS} epochs" in report.causes[0].evidence
    assert over(dataset).matches
    known = dataset.filter(lambda x, y: True).apply(tf.data.experimental.assert_cardinality(4))
    assert over(known).matches


def test_a_fault_of_the_step_and_one_of_the_epoch():
    report = diagnosed(training(ordered, step=by_hand(loops.summed)))
    assert sorted(cause.id for cause in report.causes) == ["D11", "D44"], str(report)
