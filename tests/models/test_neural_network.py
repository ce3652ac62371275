"""The document's network: its shapes, its numbers by hand, and what it refuses."""

import keras
import numpy as np
import pytest

from tfbig.models import NeuralNetwork


def test_is_the_documents_network():
    network = NeuralNetwork()
    network.build((None, 30))
    shape = [
        (d.units, d.activation.__name__) for d in (network.dense1, network.dense2, network.dense3)
    ]
    assert shape == [(10, "relu"), (10, "relu"), (1, "sigmoid")]
    # 30 x 10 + 10, 10 x 10 + 10, 10 x 1 + 1
    assert network.count_params() == 310 + 110 + 11
    assert isinstance(network, keras.Model)


def test_forward_pass_by_numpy():
    network, x = NeuralNetwork(), np.random.default_rng(0).normal(size=(5, 7)).astype("float32")
    y = network(x).numpy()
    w1, b1, w2, b2, w3, b3 = (w.astype("float64") for w in network.get_weights())
    hidden = np.maximum(np.maximum(x @ w1 + b1, 0) @ w2 + b2, 0)
    # 1e-6: float32.
    np.testing.assert_allclose(y, 1 / (1 + np.exp(-(hidden @ w3 + b3))), atol=1e-6)


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"hidden_units": (), "outputs": 1},
        {"hidden_units": (4,), "outputs": 3, "output_activation": "softmax"},
        {"hidden_units": (8, 4, 2), "activation": "gelu", "output_activation": "linear"},
    ],
    ids=str,
)
def test_saves_and_loads_in_safe_mode(arguments, tmp_path):
    network, x = NeuralNetwork(**arguments), np.ones((2, 6), "float32")
    y = network(x)
    network.save(tmp_path / "network.keras")
    again = keras.models.load_model(tmp_path / "network.keras", safe_mode=True)
    assert type(again) is NeuralNetwork and again.get_config() == network.get_config()
    np.testing.assert_array_equal(again(x), y)


def test_learns_a_regression():
    x = np.random.default_rng(0).normal(size=(256, 2)).astype("float32")
    y = x @ np.array([[2.0], [-1.0]], "float32")
    network = NeuralNetwork((), 1, output_activation="linear")
    network.compile(keras.optimizers.SGD(0.2), "mse")
    network.fit(x, y, epochs=20, verbose=0)
    np.testing.assert_allclose(network.dense1.get_weights()[0].ravel(), [2, -1], atol=1e-3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"hidden_units": (10, 0)}, "one is 0"),
        ({"outputs": 0}, "one is 0"),
        ({"hidden_units": (10, 2.5)}, "one is 2.5"),
        ({"hidden_units": 10}, r"write \(10,\)"),
        ({"activation": "typo"}, "typo"),
    ],
)
def test_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        NeuralNetwork(**arguments)
