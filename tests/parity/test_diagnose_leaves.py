"""A diagnosis leaves everything as it was, also where the loop raises; and bad input is told."""

import importlib.util
import inspect
import json
import random
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.parity import loops
from tests.parity.loops import COLUMN, X, by_hand, dense, mse
from tfbig.parity import LoopError, diagnose
from tfbig.training import surgery

layers, optimizers = keras.layers, keras.optimizers


def everything():
    """A network with BatchNorm, dropout, a random layer without a seed of its own and slots."""
    between = [layers.BatchNormalization(), layers.Dropout(0.3, seed=1), layers.GaussianNoise(0.1)]
    model = dense(between=between, optimizer=optimizers.Adam(0.01, use_ema=True))
    model.compile(model.optimizer, "mse", metrics=["mae"])
    return model


def state(model, *others):
    """All numbers that a step may change, as bytes, and what must be the same object."""
    variables = [*model.variables, *model.metrics_variables, *model.optimizer.variables]
    variables += [*surgery.global_seed_state(), *(v for o in others for v in o.variables)]
    objects = [model.optimizer, model.train_function, vars(model).get("history"), model.loss]
    objects += [random.getstate(), np.random.get_state()[1].tobytes(), model.stop_training]
    names = sorted(name for name in vars(model) if name in ("call", "train_step", "compute_loss"))
    return [v.numpy().tobytes() for v in variables], objects, names


def drawing(model, x):
    np.random.normal()
    random.random()
    return model(x, training=True)


def raising(model, x, y, sample_weight):
    """In step 2, after it has changed everything."""
    by_hand(call=drawing)(model, x, y, sample_weight)
    if int(model.optimizer.iterations) % 10 == 2:
        raise KeyError("the step 2")


LOOPS = {
    "ours": None,
    "own": by_hand(call=drawing),
    "graph": tf.function(by_hand()),
    "wrong": by_hand(loops.summed, call=lambda m, x: m(x)),
    "unexplained": by_hand(lambda y, p, w: mse(y, p, w) + tf.reduce_mean(tf.sin(p))),
}


@pytest.mark.parametrize("fitted", [True, False])
def test_everything_is_as_it_was(fitted):
    model = everything()
    if fitted:
        model.fit(X, COLUMN, epochs=10, batch_size=13, verbose=0)
    else:
        diagnose(model, X, COLUMN)  # which makes the slots and the metrics
    before = state(model)
    for name, loop in LOOPS.items() if fitted else [("own", LOOPS["own"])]:
        diagnose(model, X, COLUMN, loop=loop)
        assert state(model) == before, name


def test_everything_is_as_it_was_after_a_training():
    model = everything()
    model.fit(X, COLUMN, verbose=0)
    before = state(model)

    def train(model, x, y, epochs):
        history = model.fit(x, y, epochs=1, verbose=0).history
        for _ in range(epochs):
            by_hand(call=drawing)(model, tf.constant(x), tf.constant(y))
        return history

    diagnose(model, X, COLUMN, train=train, batch_size=13)
    assert state(model) == before


@pytest.mark.parametrize("mode", ["loop", "train"])
def test_a_loop_that_raises(mode):
    model = everything()
    model.fit(X, COLUMN, epochs=10, batch_size=13, verbose=0)
    before, eager = state(model), tf.config.functions_run_eagerly()

    def train(model, x, y, epochs):
        for _ in range(5):
            raising(model, tf.constant(x), tf.constant(y), None)

    with pytest.raises(LoopError) as caught:
        diagnose(model, X, COLUMN, **{mode: raising if mode == "loop" else train})
    assert state(model) == before and tf.config.functions_run_eagerly() is eager
    lines, first = inspect.getsourcelines(raising)
    line = first + next(i for i, text in enumerate(lines) if "raise" in text)
    assert f"{__file__}:{line}" in str(caught.value) and "KeyError" in str(caught.value)
    assert ("in step 2" if mode == "loop" else "in training") in str(caught.value)
    assert isinstance(caught.value, ValueError) and isinstance(caught.value.__cause__, KeyError)


@pytest.mark.parametrize("folder", ["mine", "keras", "tensorflow"])
def test_a_loop_that_raises_in_a_folder_of_any_name(folder, tmp_path):
    path = tmp_path / folder / "my_loop.py"
    path.parent.mkdir()
    path.write_text("def loop(model, x, y, sample_weight):\n    raise OSError('no')\n")
    spec = importlib.util.spec_from_file_location("my_loop", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with pytest.raises(LoopError, match="OSError") as caught:
        diagnose(dense(), X, COLUMN, loop=module.loop)
    assert f"{path}:2" in str(caught.value)


@pytest.mark.parametrize("built", [True, False])
def test_a_loops_own_optimizer_is_as_it_was(built):
    model = everything()
    diagnose(model, X, COLUMN)
    own = optimizers.Adam(0.01)
    if built:
        own.build(model.trainable_variables)
        own.apply([tf.ones_like(v) for v in model.trainable_variables])
    before = state(model), [v.numpy().tobytes() for v in own.variables]
    diagnose(model, X, COLUMN, loop=loops.with_optimizer(own))
    after = [v.numpy() for v in own.variables]
    assert state(model) == before[0]
    if built:
        assert [v.tobytes() for v in after] == before[1]
    else:
        rate = after.pop(1)
        assert rate == np.float32(0.01) and not any(np.any(v) for v in after)

    def breaks(model, x, y, sample_weight):
        loops.with_optimizer(own)(model, x, y, sample_weight)
        raise KeyError

    with pytest.raises(LoopError):
        diagnose(model, X, COLUMN, loop=breaks)
    assert state(model) == before[0]
    assert built is False or [v.numpy().tobytes() for v in own.variables] == before[1]


def nothing(model, x, y, sample_weight):
    return {"loss": 1.0}


def without_number(model, x, y, sample_weight):
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(model(x, training=True)) * float("nan")
    gradients = tape.gradient(loss, model.trainable_variables)
    model.optimizer.apply_gradients(zip(gradients, model.trainable_variables))
    return {"loss": loss}


def only_looked_at(model, x, y, sample_weight):
    with tf.GradientTape() as tape:
        loss = mse(y, model(x, training=True), None)
    tape.gradient(loss, model.trainable_variables)


@pytest.mark.parametrize(
    ("loop", "said"),
    [
        (nothing, "took no gradient by the model's weights and moved none of them"),
        (without_number, "the gradient is not finite"),
        (only_looked_at, "the loop moves no weight"),
    ],
)
def test_a_loop_of_which_nothing_can_be_told(loop, said):
    report = diagnose(dense(), X, COLUMN, loop=loop)
    assert not report.causes and not report.matches
    assert any(said in text for text in report.unexplained), str(report)
    assert json.dumps(report.to_json()) and report._repr_html_()


@pytest.mark.parametrize("apply", [False, True])
def test_a_loop_that_trains_other_weights(apply):
    """D42, whether the result moves the model's weights or the other's."""
    model = dense()
    other = keras.models.clone_model(model)
    own = optimizers.SGD(loops.RATE)

    def loop(model, x, y, sample_weight):
        with tf.GradientTape() as tape:
            loss = mse(y, other(x, training=True), None)
        gradients = tape.gradient(loss, other.trainable_variables)
        target = model.trainable_variables if apply else other.trainable_variables
        own.apply(gradients, target)

    report = diagnose(model, X, COLUMN, loop=loop)
    assert [cause.id for cause in report.causes] == ["D42"], str(report)
    assert Path(report.causes[0].where.rsplit(":")[0]).resolve() == Path(__file__)
    assert ("yet the result moves the model's weights" in report.causes[0].evidence) is apply


def test_what_cannot_be_diagnosed_is_said():
    with pytest.raises(ValueError, match="not compiled: call model.compile"):
        diagnose(keras.Sequential([layers.Dense(1)]), X, COLUMN, loop=nothing)
    with pytest.raises(ValueError, match="not compiled: call model.compile"):
        diagnose(keras.Sequential([layers.Dense(1)]), X, COLUMN, train=nothing)
    with pytest.raises(ValueError, match="Give a loop.*or a train"):
        diagnose(dense(), X, COLUMN, loop=nothing, train=nothing)
    with pytest.raises(LoopError, match=r"this one takes \(a, b, c, d, e\)"):
        diagnose(dense(), X, COLUMN, loop=lambda a, b, c, d, e: None)
    with pytest.raises(LoopError, match="took no step that could be seen"):
        diagnose(dense(), X, COLUMN, train=nothing)


def test_a_model_that_is_not_built_yet():
    model = keras.Sequential([layers.Dense(4, "tanh"), layers.Dense(1)])
    model.compile("adam", "mse")
    report = diagnose(model, X, COLUMN, loop=by_hand(loops.summed))
    assert [cause.id for cause in report.causes] == ["D11"]
    assert int(model.optimizer.iterations) == 0
