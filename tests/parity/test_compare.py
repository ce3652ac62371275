"""The comparison: right loops match, wrong ones do not, and the model is left as it was."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.conformance.networks import CASES
from tfbig import parity
from tfbig.models import NeuralNetwork
from tfbig.parity.report import Report, rows

X = np.random.default_rng(0).normal(size=(12, 30)).astype("float32")
Y = (X[:, :1] > 0).astype("float32")


def network(optimizer="adam", **options):
    model = NeuralNetwork()
    model.compile(optimizer, "binary_crossentropy", metrics=["accuracy"], **options)
    return model


def right(model, x, y, sample_weight):
    with tf.GradientTape() as tape:
        loss = model.compute_loss(x, y, model(x, training=True), sample_weight)
    gradients = tape.gradient(loss, model.trainable_variables)
    model.optimizer.apply_gradients(zip(gradients, model.trainable_variables))


def summed(model, x, y, sample_weight):
    """D11: a sum where a mean belongs."""
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(keras.losses.binary_crossentropy(y, model(x, training=True)))
    gradients = tape.gradient(loss, model.trainable_variables)
    model.optimizer.apply_gradients(zip(gradients, model.trainable_variables))


def test_numbers_by_hand():
    """a = (3, 4), b = (4, 3): |a| = 5, cosine 24 / 25, |a - b| / |a| = sqrt 2 / 5."""
    a, zero = np.array([3.0, 4.0]), np.array([1e-9])
    row, noise, missing = rows(["w", "key", "gone"], [a, zero, a], [a[::-1], -zero, None])
    assert (row.norm_a, row.ratio) == (5.0, 1.0)
    assert row.cosine == pytest.approx(0.96) and row.error == pytest.approx(2**0.5 / 5)
    assert noise.is_zero and not row.is_zero
    assert missing.error == 1.0 and missing.norm_b is None
    report = Report((row, noise), tolerance=1e-6)
    assert report.max_relative_error == row.error and report.zero_gradient == (noise,)
    # The floor: |a| = 1e-5 of a global norm of 7.07... is above it, 1e-9 is not.
    assert rows(["w"], [np.array([np.nan])], [np.array([1.0])])[0].error == float("inf")


def test_the_gradient_is_the_tapes():
    model = network()
    model(X)
    with tf.GradientTape() as tape:
        loss = keras.losses.BinaryCrossentropy()(Y, model(X, training=True))
    expected = tape.gradient(loss, model.trainable_variables)
    report = parity.compare(model, X, Y)
    for row, gradient in zip(report.rows, expected, strict=True):
        assert row.norm_a == pytest.approx(float(tf.norm(gradient)), rel=1e-5)


@pytest.mark.parametrize("loop", [None, right, tf.function(right)], ids=["ours", "own", "graph"])
@pytest.mark.parametrize("weight", [None, np.linspace(0, 2, 12)], ids=["", "weights"])
def test_right_loops_match(loop, weight):
    report = parity.assert_same(network(), X, Y, weight, loop=loop)
    assert report.matches and report.independent and len(report.compared) == 6


def test_a_sum_for_a_mean_is_told_by_its_ratio():
    report = parity.compare(network(), X, Y, loop=summed)
    assert not report.matches
    for row in report.compared:
        assert row.ratio == pytest.approx(12, rel=1e-5)  # the number of examples
        assert row.cosine == pytest.approx(1, abs=1e-6)
    with pytest.raises(parity.ParityError, match="The gradients differ: largest error 1.1e"):
        parity.assert_same(network(), X, Y, loop=summed)


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda: keras.optimizers.AdamW(weight_decay=0.5, clipnorm=0.01, use_ema=True),
        lambda: keras.optimizers.SGD(gradient_accumulation_steps=4),
        lambda: keras.optimizers.Adam(loss_scale_factor=128.0, global_clipnorm=1e-3),
        lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam()),
    ],
)
def test_sees_the_gradient_and_not_what_the_optimizer_makes_of_it(optimizer):
    keras.utils.set_random_seed(0)
    plain = parity.compare(network(), X, Y)
    keras.utils.set_random_seed(0)
    other = parity.compare(network(optimizer()), X, Y)
    for a, b in zip(plain.rows, other.rows):
        assert b.norm_a == pytest.approx(a.norm_a, rel=1e-5)
        assert b.norm_b == pytest.approx(a.norm_b, rel=1e-5)


@pytest.mark.parametrize("name", ["cnn", "regularized", "noise_prediction", "attention"])
@pytest.mark.parametrize("built", [True, False])
def test_the_model_is_left_as_it_was(name, built):
    case = next(c for c in CASES if c.name == name)
    model, (x, y) = case.build(), case.data()
    if built:
        model.fit(x, y, verbose=0)
    else:
        parity.compare(model, x, y)  # which builds it

    def state():
        variables = [*model.variables, *model.metrics_variables, *model.optimizer.variables]
        return [v.numpy() for v in variables]

    before, optimizer, function = state(), model.optimizer, model.train_function
    constraints = [v.constraint for v in model.trainable_variables]
    history = vars(model).get("history")
    parity.compare(model, x, y)
    for a, b in zip(before, state(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert model.optimizer is optimizer and model.train_function is function
    assert [v.constraint for v in model.trainable_variables] == constraints
    assert vars(model).get("history") is history
    assert "apply" not in vars(optimizer)


def test_zero_gradients_are_listed_apart():
    """A key's bias adds the same number to all scores of a row: softmax does not see it."""
    case = next(c for c in CASES if c.name == "attention")
    report = parity.compare(case.build(), *case.data())
    assert ["key/bias" in row.path for row in report.zero_gradient] == [True]


def test_repeated_rows_are_summed():
    model = keras.Sequential(
        [
            keras.layers.Embedding(3, 1),
            keras.layers.Flatten(),
            keras.layers.Dense(1, kernel_initializer="ones", trainable=False),
        ]
    )
    model.compile("sgd", loss=lambda y, p: p)
    (row,) = parity.compare(model, np.zeros((1, 4), "int32"), np.zeros((1, 1))).rows
    assert row.norm_a == row.norm_b == 4.0  # one row, met four times


def test_a_loop_that_was_traced_with_the_old_optimizer():
    model = network()
    optimizer = (model(X), model.optimizer)[1]

    @tf.function
    def traced(model, x, y, sample_weight):
        with tf.GradientTape() as tape:
            loss = model.compute_loss(x, y, model(x, training=True), sample_weight)
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables))

    traced(model, tf.constant(X), tf.constant(Y), None)
    assert parity.compare(model, X, Y, loop=traced).matches
    before = model.get_weights()[0]
    with pytest.raises(ValueError, match="changed neural_network.*past model.optimizer"):
        parity.compare(model, X, Y, loop=lambda m, x, y, w: traced(m, x, y, w))
    np.testing.assert_array_equal(model.get_weights()[0], before)


def test_a_loop_that_applies_nothing():
    with pytest.raises(ValueError, match="never applied a gradient"):
        parity.compare(network(), X, Y, loop=lambda *a: None)
    with pytest.raises(ValueError, match="not compiled"):
        parity.compare(NeuralNetwork(), X, Y)


def test_a_train_step_of_ones_own_is_no_witness():
    class Own(NeuralNetwork):
        def train_step(self, data):
            summed(self, *data, None)
            return {"loss": tf.constant(0.0)}

    model = Own()
    model.compile("adam", "binary_crossentropy")
    report = parity.compare(model, X, Y)
    assert not report.independent and "no independent witness" in str(report)


def test_report_as_text_html_json_and_picture(tmp_path):
    report = parity.compare(network(), X, Y, loop=summed)
    text = str(report)
    assert text.splitlines()[2].split() == [
        "variable",
        "|fit|",
        "|loop|",
        "ratio",
        "cosine",
        "error",
    ]
    assert len(text.splitlines()) == 3 + 6
    assert report._repr_html_().count("<tr>") == 7
    assert json.loads(json.dumps(report.to_json()))["variables"][0]["ratio"] == pytest.approx(12)
    report.plot().savefig(tmp_path / "report.png")
    assert (tmp_path / "report.png").stat().st_size > 5000


def test_probe_by_hand():
    """mean((w x)^2), w = 1, x = 1 in two columns: the gradient is 2 (1 + 1) = 4 each."""
    model = keras.Sequential([keras.layers.Dense(1, kernel_initializer="ones")])
    probe = parity.Probe()
    model.compile(probe, loss="mse", jit_compile=True)
    model.fit(np.ones((4, 2)), np.zeros((4, 1)), verbose=0)
    assert probe.gradients()[0].tolist() == [[4.0], [4.0]] and probe.calls() == 1
