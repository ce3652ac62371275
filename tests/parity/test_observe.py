"""What is seen of a loop, and that nothing of the watching stays."""

import contextlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.parity import loops
from tests.parity.loops import COLUMN, X, by_hand, dense
from tfbig.parity import observe
from tfbig.parity.observe import Apply, Forward, TapeGradient, observing

PATCHED = [
    (tf.GradientTape, "gradient"),
    (tf.GradientTape, "__enter__"),
    (tf.GradientTape, "__exit__"),
    (keras.optimizers.Optimizer, "apply"),
    (keras.optimizers.LossScaleOptimizer, "apply"),
]
x, y = tf.constant(X), tf.constant(COLUMN)


def patched():
    return [vars(owner).get(name) for owner, name in PATCHED]


def kinds(seen):
    return [type(event) for event in seen.events]


def test_one_step_is_three_events():
    model = dense()
    with observing(model) as seen:
        by_hand()(model, x, y)
    assert kinds(seen) == [Forward, TapeGradient, Apply] and seen.of(Apply) == seen.events[2:]
    forward, gradient, apply = seen.events
    assert forward.taped and forward.used and forward.training is True and forward.x is x
    assert gradient.forwards == [forward] and len(gradient.values) == 6
    assert [v.path for v in gradient.sources] == [v.path for v in model.trainable_variables]
    for a, b in zip(gradient.values, apply.gradients):
        np.testing.assert_array_equal(a, b)
    # mean((p - y)^2): the gradient by p is 2 (p - y) / n.
    expected = 2 * (forward.outputs[0] - y) / len(X)
    np.testing.assert_allclose(gradient.deltas[0][0], expected, rtol=1e-6)
    assert float(gradient.target[0]) == pytest.approx(
        float(tf.reduce_mean((forward.outputs[0] - y) ** 2))
    )
    assert (apply.scale, apply.replica) == (1.0, 0)
    assert apply.optimizer is model.optimizer and not seen.own


def test_a_call_outside_of_the_tape_is_told_from_one_inside():
    model = dense()
    with observing(model) as seen:
        model(x)
        by_hand(after=lambda m, x: m(x, training=True))(model, x, y)
        model.predict_on_batch(x)
    assert [(f.taped, f.used) for f in seen.of(Forward)] == [
        (False, False), (True, True), (False, False), (False, False),
    ]  # fmt: skip
    assert [f.training for f in seen.of(Forward)] == [None, True, True, False]


@pytest.mark.parametrize("traced", [True, False])
def test_functions_inside_functions_are_seen(traced):
    """Whether they were traced before or not; as numbers, and with their lines."""
    model = dense()
    model.optimizer.build(model.trainable_variables)

    @tf.function
    def gradients_of(x, y):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((model(x, training=True) - y) ** 2)
        return tape.gradient(loss, model.trainable_variables)

    @tf.function
    def outer(x, y):
        gradients = gradients_of(x, y)
        model.optimizer.apply_gradients(zip(gradients, model.trainable_variables))

    if traced:
        outer(x, y)
    with observing(model) as seen:
        outer(x, y)
        outer(x, y)
    assert kinds(seen) == [Forward, TapeGradient, Apply] * 2
    assert all(isinstance(v, np.ndarray) for g in seen.of(TapeGradient) for v in g.values)
    first = gradients_of.python_function.__code__.co_firstlineno
    assert [e.at.rsplit(":", 1)[1] for e in seen.events[:3]] == [
        str(first + 3), str(first + 4), str(first + 9),
    ]  # fmt: skip
    before = seen.of(Forward)[0].before.values[0], seen.of(Forward)[1].before.values[0]
    assert not np.array_equal(*before)
    outer(x, y)  # and afterwards runs as a graph again
    assert len(seen.events) == 6


@pytest.mark.parametrize("eager", [True, False])
@pytest.mark.parametrize("raises", [True, False])
def test_nothing_of_the_watching_stays(eager, raises):
    model, before = dense(), patched()
    tf.config.run_functions_eagerly(eager)
    try:
        with pytest.raises(KeyError) if raises else contextlib.nullcontext():
            with observing(model):
                assert patched() != before and tf.config.functions_run_eagerly()
                by_hand()(model, x, y)
                if raises:
                    with tf.GradientTape():
                        raise KeyError
        assert patched() == before and "call" not in vars(model)
        assert tf.config.functions_run_eagerly() is eager
    finally:
        tf.config.run_functions_eagerly(False)
    assert model.call.__func__ is type(model).call


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_model_that_raises_is_unwatched_too(error):
    class Broken(keras.Model):
        def call(self, x):
            raise error

    model, before = loops.compiled(Broken()), patched()
    with pytest.raises(error):
        with observing(model) as seen:
            model(x)
    assert patched() == before and not seen.events and "call" not in vars(model)


def test_a_models_own_patch_of_call_stays():
    """Someone else's `model.call = ...` (as `tap` makes it) is there again afterwards."""
    model = dense()
    original = model.call

    def mine(*args, **kwargs):
        return original(*args, **kwargs)

    object.__setattr__(model, "call", mine)
    with observing(model) as seen:
        by_hand()(model, x, y)
    assert vars(model).get("call") is mine and len(seen.of(Forward)) == 1


def test_own_optimizers_are_put_back():
    model = dense()
    used, fresh = keras.optimizers.Adam(0.1), keras.optimizers.Adam(0.1)
    loops.with_optimizer(used)(model, x, y)
    before = [v.numpy() for v in used.variables]
    assert int(used.iterations) == 1
    with observing(model) as seen:
        for optimizer in (used, fresh, model.optimizer):
            for _ in range(2):
                loops.with_optimizer(optimizer)(model, x, y)
    assert {id(optimizer) for optimizer, _ in seen.own.values()} == {id(used), id(fresh)}
    assert (int(used.iterations), int(fresh.iterations)) == (3, 2)
    seen.restore_own_optimizers()
    for a, v in zip(before, used.variables, strict=True):
        np.testing.assert_array_equal(a, v)
    assert int(fresh.iterations) == 0 and int(model.optimizer.iterations) == 2


def test_repeated_rows_are_summed_and_the_loop_gets_them_as_they_are():
    """Row 1 is met three times, row 2 once: gradients of 3 and 1 for a sum."""
    model = keras.Sequential([keras.Input((4,), dtype="int32"), keras.layers.Embedding(3, 1)])
    loops.compiled(model)
    got = []

    def update(model, gradients, variables):
        got.extend(gradients)
        loops.descend(model, gradients, variables)

    with observing(model) as seen:
        loop = by_hand(lambda y, p, w: tf.reduce_sum(p), update=update)
        loop(model, tf.constant([[1, 2, 1, 1]]), tf.zeros((1, 4, 1)))
    assert isinstance(got[0], tf.IndexedSlices) and len(got[0].indices) == 4
    assert seen.of(TapeGradient)[0].values[0].ravel().tolist() == [0.0, 3.0, 1.0]
    assert seen.of(TapeGradient)[0].given[0] is got[0] is seen.of(Apply)[0].given[0]
    assert seen.of(Apply)[0].gradients[0].ravel().tolist() == [0.0, 3.0, 1.0]


def test_an_optimizer_inside_another_is_one_update():
    inner = keras.optimizers.SGD(0.1)
    model = dense(optimizer=keras.optimizers.LossScaleOptimizer(inner, initial_scale=8.0))
    with observing(model) as seen:
        by_hand()(model, x, y)
    (apply,) = seen.of(Apply)
    assert apply.optimizer is model.optimizer and apply.scale == 8.0 and not seen.own
    assert observe.loss_scale(inner) == 1.0


def test_a_gradient_by_inputs_is_no_step():
    """Of a gradient penalty the inner tape asks for no weight."""
    model = loops.penalised()
    with observing(model) as seen:
        by_hand()(model, x, y)
    assert kinds(seen) == [Forward, Forward, TapeGradient, Apply]
    assert [f.used for f in seen.of(Forward)] == [True, False]


def test_weights_may_be_tensorflows_own_and_structured():
    model = dense()
    with observing(model) as seen, tf.GradientTape() as tape:
        loss = tf.reduce_sum(model(x, training=True))
        asked = {"first": model.layers[0].kernel.value, "rest": [model.layers[0].bias.value]}
        gradients = tape.gradient(loss, asked)
    assert gradients.keys() == asked.keys() and len(gradients["rest"]) == 1
    (event,) = seen.of(TapeGradient)
    np.testing.assert_array_equal(event.values[0], gradients["first"])
