"""The textbook against TensorFlow in float64, against finite differences, and by hand."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfbig.data import breast_cancer
from tfbig.training import textbook

# loss: activation of Keras's last layer, Keras's loss, number of outputs
LOSSES = {
    "mse": ("linear", "MeanSquaredError", 2),
    "mse_sigmoid": ("sigmoid", "MeanSquaredError", 1),
    "binary_crossentropy": ("sigmoid", "BinaryCrossentropy", 1),
    "categorical_crossentropy": ("softmax", "CategoricalCrossentropy", 3),
}


def example(loss):
    activation, keras_loss, outputs = LOSSES[loss]
    keras.config.set_floatx("float64")
    model = keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(10, "relu"),
            keras.layers.Dense(10, "relu"),
            keras.layers.Dense(outputs, activation),
        ]
    )
    rng = np.random.default_rng(1)
    x = rng.normal(size=(9, 6))
    y = rng.normal(size=(9, outputs)) if loss == "mse" else np.eye(max(outputs, 2))[rng.integers(
        0, max(outputs, 2), 9)][:, :outputs]
    return model, getattr(keras.losses, keras_loss)(), x, y


@pytest.mark.parametrize("loss", LOSSES)
def test_agrees_with_tensorflow_in_float64(loss):
    model, keras_loss, x, y = example(loss)
    with tf.GradientTape() as tape:
        expected = keras_loss(y, model(x))
    expected_gradient = tape.gradient(expected, model.trainable_variables)
    parameters = textbook.parameters_from_weights(model.get_weights())
    value, gradient = textbook.loss_and_gradient(parameters, x, y, loss)
    # 1e-12: some thousand roundings of 1e-16.
    np.testing.assert_allclose(value, float(expected), rtol=1e-12)
    flat = [g for pair in gradient for g in pair]
    for ours, theirs in zip(flat, expected_gradient, strict=True):
        scale = np.abs(theirs.numpy()).max()
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-12, atol=1e-12 * scale)
    np.testing.assert_allclose(textbook.predict(parameters, x, loss), model(x).numpy(), rtol=1e-12)


@pytest.mark.parametrize("loss", LOSSES)
def test_agrees_with_finite_differences(loss):
    model, _, x, y = example(loss)
    parameters = textbook.parameters_from_weights(model.get_weights())
    _, gradient = textbook.loss_and_gradient(parameters, x, y, loss)
    slopes = textbook.finite_differences(parameters, x, y, loss)
    for pair, other in zip(gradient, slopes, strict=True):
        for a, b in zip(pair, other, strict=True):
            # 1e-8: h^2 and 1e-16 / h are both below it for h = 1e-6.
            np.testing.assert_allclose(a, b, atol=1e-8)


def test_one_neuron_by_hand():
    """w = 0.5, b = 0.1, x = 2: z = 1.1; s = 1 / (1 + e^-1.1) = 0.7502601; y = 0."""
    theta = [(np.array([[0.5]]), np.array([0.1]))]
    value, [(dw, db)] = textbook.loss_and_gradient(
        theta, np.array([[2.0]]), np.array([[0.0]]), "binary_crossentropy"
    )
    assert value == pytest.approx(1.3873353, abs=1e-6)  # -ln(1 - 0.7502601)
    assert db[0] == pytest.approx(0.7502601, abs=1e-6)  # s - y
    assert dw[0, 0] == pytest.approx(1.5005202, abs=1e-6)  # (s - y) x
    [(w, b)] = textbook.gradient_descent(theta, [(dw, db)], alpha=0.1)
    assert w[0, 0] == pytest.approx(0.3499480, abs=1e-6)
    assert b[0] == pytest.approx(0.0249740, abs=1e-6)


def test_is_finite_where_a_probability_rounds_to_one():
    value, slope = textbook.binary_cross_entropy(np.array([[800.0]]), np.array([[0.0]]))
    assert value == 800.0 and slope[0, 0] == 1.0


def test_trains_the_documents_network_by_itself():
    split = breast_cancer()
    mean, deviation = split.x_train.mean(0), split.x_train.std(0)
    x, x_test = (split.x_train - mean) / deviation, (split.x_test - mean) / deviation
    rng = np.random.default_rng(0)
    parameters = [
        (rng.normal(size=(a, b)) * np.sqrt(2 / a), np.zeros(b)) for a, b in ((30, 10), (10, 10), (10, 1))
    ]
    trained, history = textbook.train(
        parameters, x, split.y_train, loss="binary_crossentropy", alpha=0.1, epochs=30
    )
    assert history[-1] < 0.1 < history[0]
    called = textbook.predict(trained, x_test, "binary_crossentropy") > 0.5
    # Logistic regression reaches 0.95 to 0.98 here; 0.93 leaves room for the 114 patients.
    assert (called == (split.y_test > 0.5)).mean() > 0.93


def test_says_what_does_not_fit():
    theta = [(np.zeros((3, 2)), np.zeros(2))]
    with pytest.raises(ValueError, match="takes 3 inputs, and is given 4"):
        textbook.loss_and_gradient(theta, np.zeros((5, 4)), np.zeros((5, 2)), "mse")
    with pytest.raises(ValueError, match="y is \\(5,\\)"):
        textbook.loss_and_gradient(theta, np.zeros((5, 3)), np.zeros(5), "mse")
    with pytest.raises(ValueError, match="layer 0 has 2 units"):
        textbook.parameters_from_weights(
            [np.zeros((3, 2)), np.zeros(2), np.zeros((3, 1)), np.zeros(1)]
        )
