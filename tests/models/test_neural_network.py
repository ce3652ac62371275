"""The document's network: its shapes, its numbers by hand, and what it refuses."""

import json

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


@keras.saving.register_keras_serializable("tests")
def doubled(x):
    return 2 * x


def test_config_round_trips():
    """A registered function, a layer as activation and a tuner's NumPy integers, through JSON."""
    network = NeuralNetwork(
        hidden_units=[np.int64(4)],
        outputs=np.int32(2),
        activation=doubled,
        output_activation=None,
        name="mine",
        dtype="mixed_float16",
    )
    config = json.loads(json.dumps(network.get_config()))
    assert config["hidden_units"] == [4] and config["outputs"] == 2
    again = NeuralNetwork.from_config(config)
    assert again.get_config() == network.get_config() and again.name == "mine"
    assert again.dense1.activation is doubled
    assert again.dense2.activation is keras.activations.linear
    assert again.dense2.compute_dtype == "float16"
    slope = NeuralNetwork(activation=keras.layers.LeakyReLU(negative_slope=0.25)).get_config()
    assert NeuralNetwork.from_config(slope).dense2.activation.negative_slope == 0.25


def test_works_symbolically_and_inside_a_functional_model(tmp_path):
    x = np.random.default_rng(0).normal(size=(4, 5)).astype("float32")
    inputs = keras.Input((5,))
    network = NeuralNetwork((8,), 3, output_activation="softmax")
    outputs = network(inputs)
    assert outputs.shape == (None, 3) == network.compute_output_shape((None, 5))
    assert network.compute_output_shape((None, 7, 5)) == (None, 7, 3)
    model = keras.Model(inputs, keras.layers.Rescaling(10.0)(outputs))
    y = model(x).numpy()
    # Probabilities, 10 times; 1e-5: float32.
    np.testing.assert_allclose(y.sum(-1), 10, rtol=1e-5)
    np.testing.assert_array_equal(y, 10 * network(x).numpy())
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras", safe_mode=True)
    np.testing.assert_array_equal(again(x), y)


def test_names_are_the_same_however_it_is_built():
    built, called = NeuralNetwork(name="a"), NeuralNetwork(name="a")
    built.build((None, 3))
    called(np.zeros((1, 3), "float32"))
    assert [w.path for w in built.weights] == [w.path for w in called.weights]
    assert built.weights[0].path == "a/dense1/kernel" and built.layers[2].name == "dense3"
    assert all(layer.built for layer in built.layers)


def test_several_classes_by_numpy():
    network, x = NeuralNetwork((), 10, output_activation="softmax"), np.eye(4, 6, dtype="float32")
    y = network(x).numpy()
    kernel, bias = (w.astype("float64") for w in network.get_weights())
    scores = np.exp(x @ kernel + bias)
    # 1e-6: float32.
    np.testing.assert_allclose(y, scores / scores.sum(-1, keepdims=True), atol=1e-6)


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
        ({"hidden_units": (True,)}, "one is True"),
        ({"hidden_units": 10}, r"write \(10,\)"),
        ({"hidden_units": None}, r"write \(10,\)"),
        ({"hidden_units": "10"}, r"write \(10,\)"),
        ({"activation": "typo"}, "typo"),
    ],
)
def test_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        NeuralNetwork(**arguments)
