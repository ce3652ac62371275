"""Guards: `assert_same` fails with the diagnosis; `ParityCheck` looks and disturbs nothing."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.parity.test_compare import X, Y, network, right, summed
from tfbig import parity
from tfbig.training import Loop


def test_assert_same_fails_with_the_diagnosis():
    with pytest.raises(parity.ParityError, match="D11: the loss is a sum") as raised:
        parity.assert_same(network(), X, Y, loop=summed)
    assert "every gradient is 12 times fit's" in str(raised.value)
    assert "mend:     loss = tf.reduce_mean(loss)" in str(raised.value)


def test_assert_same_sees_what_the_gradient_does_not_show():
    own = keras.optimizers.Adam(0.5)

    def loop(model, x, y, sample_weight):
        with tf.GradientTape() as tape:
            loss = model.compute_loss(x, y, model(x, training=True), sample_weight)
        variables = model.trainable_variables
        own.apply_gradients(zip(tape.gradient(loss, variables), variables))

    with pytest.raises(parity.ParityError, match="D35.*learning rate"):
        parity.assert_same(network(), X, Y, loop=loop)


def test_assert_same_with_a_tolerance_of_ones_own():
    assert parity.assert_same(network(), X, Y, loop=right, tolerance=1e-4).tolerance == 1e-4


def noisy(**options):
    """A network in which everything that a look could disturb has a state."""
    model = keras.Sequential(
        [
            keras.Input((30,)),
            keras.layers.Dense(8),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.4),
            keras.layers.Dense(1, "sigmoid"),
        ]
    )
    model.compile("adam", "binary_crossentropy", metrics=["accuracy"], **options)
    return model


@pytest.mark.parametrize("driver", ["fit", "loop"])
def test_a_look_disturbs_nothing(driver):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(40, 30)).astype("float32")
    y = (x[:, :1] > 0).astype("float32")

    def train(callbacks):
        keras.utils.set_random_seed(4)
        model = noisy()
        fit = model.fit if driver == "fit" else Loop(model).fit
        history = fit(x, y, batch_size=8, epochs=2, verbose=0, callbacks=callbacks)
        state = [*model.variables, *model.optimizer.variables]
        return history.history, [v.numpy() for v in state], rng.bit_generator.state

    check = parity.ParityCheck(X, Y, every=3)
    plain, looked = train([]), train([check])
    assert [step for step, _ in check.results] == [3, 6, 9]
    assert all("are the same" in verdict for _, verdict in check.results)
    assert plain[0] == looked[0]
    for a, b in zip(plain[1], looked[1], strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_look_at_a_faulty_loop_warns_with_the_cause():
    check = parity.ParityCheck(X, Y, every=2, loop=summed)
    # Not pytest.warns, which would show Keras's own warnings as this test's.
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        network().fit(X, Y, batch_size=4, verbose=0, callbacks=[check])
    (said,) = [str(w.message) for w in seen if str(w.message).startswith("In step")]
    assert said.startswith("In step 2: ") and "D11: the loss is a sum" in said
    assert "[D11]" in check.results[0][1]


def test_what_cannot_be_cloned_is_said_at_the_start():
    class NoConfig(keras.Model):
        def __init__(self, width):
            super().__init__()
            self.dense = keras.layers.Dense(width)

        def call(self, x):
            return self.dense(x)

        def get_config(self):
            return {}

    model = NoConfig(1)
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="(?s)NoConfig cannot be cloned.*needs get_config"):
        model.fit(X, Y, verbose=0, callbacks=[parity.ParityCheck(X, Y)])
    with pytest.raises(ValueError, match="at least 1 step"):
        parity.ParityCheck(X, Y, every=0)
