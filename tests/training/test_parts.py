"""Objectives, gradient rules, where and taps, each by a number of its own."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfbig.models import NeuralNetwork
from tfbig.training import (
    Accumulation,
    LabelSmoothing,
    Learner,
    Loop,
    NoisePrediction,
    RuledLearner,
    Supervised,
    gradient,
    tap,
    where,
)
from tfbig.training.objective import smooth

X = np.random.default_rng(0).normal(size=(20, 30)).astype("float32")
Y = (X[:, :1] > 0).astype("float32")


def test_label_smoothing_by_hand():
    """p = 0.8, y = 1, a = 0.2: y' = 0.9; -0.9 ln 0.8 - 0.1 ln 0.2 = 0.3617729."""
    objective = LabelSmoothing(Supervised("binary_crossentropy"), 0.2)
    loss = objective.loss(None, np.array([[1.0]]), np.array([[0.8]]), None)
    assert float(loss) == pytest.approx(0.3617729, abs=1e-5)


def test_label_smoothing_is_keras_own():
    for name, y in (
        ("BinaryCrossentropy", Y),
        ("CategoricalCrossentropy", np.eye(3)[[0, 2, 1, 0]]),
    ):
        p = np.random.default_rng(1).dirichlet(np.ones(y.shape[1] + 1), len(y))[:, : y.shape[1]]
        expected = getattr(keras.losses, name)(label_smoothing=0.3)(y, p)
        objective = LabelSmoothing(Supervised(getattr(keras.losses, name)()), 0.3)
        assert float(objective.loss(None, y, p, None)) == pytest.approx(float(expected), rel=1e-6)


def test_no_smoothing_is_the_baseline():
    np.testing.assert_array_equal(smooth(keras.ops.convert_to_tensor(Y), 0.0), Y)


def test_supervised_is_what_compile_does():
    """Law 1: stock fit of the network, stock fit of the Learner and the loop, one gradient."""
    results = []
    for kind in ("network", "learner", "loop", "column"):
        keras.utils.set_random_seed(2)
        network = NeuralNetwork()
        model = (
            network if kind == "network" else Learner(network, Supervised("binary_crossentropy"))
        )
        model.compile("sgd", **({"loss": "binary_crossentropy"} if kind == "network" else {}))
        fit = Loop(model).fit if kind == "loop" else model.fit
        fit(
            X,
            Y[:, 0] if kind == "column" else Y,
            epochs=3,
            batch_size=8,
            verbose=0,
            sample_weight=np.linspace(0, 2, 20),
        )
        results.append(network.get_weights())
    for other in results[1:]:
        for u, v in zip(results[0], other):
            np.testing.assert_allclose(v, u, rtol=1e-6, atol=1e-8)


def test_noise_prediction_mixes_as_in_the_paper():
    """x_t = sqrt(a) x + sqrt(1 - a) noise, and the loss of a network that says 0 is E noise^2."""
    given = {}

    class Zero(keras.layers.Layer):
        def call(self, inputs):
            given.update(inputs)
            return keras.ops.zeros_like(inputs["x"])

    x = np.full((4000, 3), 2.0, "float32")
    objective = NoisePrediction(seed=1)
    prediction = objective.forward(Zero(), x, training=True)
    noise, signal = np.array(prediction["noise"]), np.array(given["signal"])
    assert signal.shape == (4000, 1) and 0 <= signal.min() and signal.max() <= 1
    np.testing.assert_allclose(
        given["x"], np.sqrt(signal) * x + np.sqrt(1 - signal) * noise, rtol=1e-5, atol=1e-5
    )
    # The variance of 12,000 squared normals is 2: 5 standard errors are 0.065.
    loss = float(objective.loss(x, None, prediction, None))
    assert loss == pytest.approx(1.0, abs=0.065)
    assert loss == pytest.approx(float((noise.astype("float64") ** 2).mean()), rel=1e-5)


def test_a_dict_prediction_is_bare_for_metrics_and_predict():
    from tests.conformance.networks import Denoiser

    learner = Learner(Denoiser(), NoisePrediction(seed=1))
    learner.compile("adam", metrics=["mae"])
    x = X[:, :5]
    assert set(Loop(learner).fit(x, x, verbose=0).history) == {"loss", "mae"}
    assert set(learner.fit(x, x, verbose=0).history) == {"loss", "mae"}
    assert learner.predict(x, verbose=0).shape == (20, 5)
    assert set(learner.evaluate(x, x, verbose=0, return_dict=True)) == {"loss", "mae"}


def test_learner_refuses_a_second_loss_and_a_bare_string():
    with pytest.raises(ValueError, match="minimises its objective"):
        Learner(NeuralNetwork(), Supervised("mse")).compile("adam", loss="mse")
    with pytest.raises(TypeError, match="write Supervised"):
        Learner(NeuralNetwork(), "mse")
    with pytest.raises(ValueError, match="Unknown loss 'typo'"):
        Supervised("typo")
    with pytest.raises(ValueError, match="between 0 and 1"):
        LabelSmoothing(Supervised("mse"), 1.5)


@pytest.mark.parametrize("parts", [1, 2, 3, 7, 30])
def test_accumulation_is_the_whole_batchs_gradient(parts):
    """Beside the naive oracle: the mean over the examples of each one's own gradient."""
    model = NeuralNetwork()
    model.compile("sgd", "binary_crossentropy")
    weight = np.linspace(0, 2, 20).astype("float32")
    loss, prediction, gradients = Accumulation(parts)(model, (X, Y, weight))
    singles = [gradient(model, (X[i : i + 1], Y[i : i + 1], weight[i : i + 1])) for i in range(20)]
    for ours, *each in zip(gradients, *[g for _, _, g in singles]):
        naive = np.mean([np.array(g, "float64") for g in each], axis=0)
        np.testing.assert_allclose(ours, naive, rtol=1e-5, atol=1e-7)  # float32 sums of 20
    assert float(loss) == pytest.approx(np.mean([float(s) for s, _, _ in singles]), rel=1e-5)
    np.testing.assert_allclose(prediction, model(X), rtol=1e-5)


def test_accumulation_over_batches_of_all_sizes_in_fit():
    weights = []
    for rule in (gradient, Accumulation(4)):
        keras.utils.set_random_seed(0)
        learner = RuledLearner(NeuralNetwork(), Supervised("binary_crossentropy"), rule)
        learner.compile("sgd")
        learner.fit(X, Y, batch_size=9, epochs=2, verbose=0)  # 9, 9 and 2: fewer than parts
        weights.append(learner.get_weights())
    for u, v in zip(*weights):
        np.testing.assert_allclose(v, u, rtol=1e-5, atol=1e-7)


def test_accumulation_keeps_embeddings_sparse():
    model = keras.Sequential(
        [keras.layers.Embedding(9, 2), keras.layers.Flatten(), keras.layers.Dense(1)]
    )
    model.compile("adam", "mse")
    batch = np.array([[1, 1], [2, 1], [3, 4], [1, 5]]), np.ones((4, 1), "float32")
    _, _, whole = gradient(model, batch)
    _, _, parts = Accumulation(2)(model, batch)
    assert isinstance(parts[0], tf.IndexedSlices)
    np.testing.assert_allclose(
        tf.convert_to_tensor(parts[0]), tf.convert_to_tensor(whole[0]), rtol=1e-5, atol=1e-7
    )


def test_where_chooses_by_path_and_by_predicate():
    network = NeuralNetwork(name="net")
    network.build((None, 30))
    assert [v.path for v in where.variables(network, "kernel$")] == [
        f"net/dense{n}/kernel" for n in (1, 2, 3)
    ]
    big = where.layers(network, lambda layer: layer.count_params() > 200)
    assert [layer.name for layer in big] == ["dense1"]
    with pytest.raises(ValueError, match="means no layer of the model. There are: net/dense1"):
        where.layers(network, "encoder")


def test_taps_see_what_the_layers_compute():
    network = NeuralNetwork(name="net")
    network.build((None, 30))
    w1, b1 = network.get_weights()[:2]
    expected = np.maximum(X @ w1 + b1, 0)
    with tap(network, "dense1") as seen:
        network(X)
        network(X[:2])
    # 1e-5: float32 sums of 30 terms in another order.
    np.testing.assert_allclose(seen["net/dense1"][0], expected, rtol=1e-5, atol=1e-5)
    assert [len(o) for o in seen["net/dense1"]] == [20, 2]


@pytest.mark.parametrize("options", [{}, {"run_eagerly": True}, {"jit_compile": True}], ids=str)
def test_taps_work_on_compiled_models_and_hand_out_no_symbols(options):
    network = NeuralNetwork(name="net")
    network.compile("adam", "binary_crossentropy", **options)
    network.fit(X, Y, batch_size=8, verbose=0)  # traced without taps
    traced = network.train_function
    expected = network.predict(X, verbose=0)
    with tap(network, "dense3") as seen:
        network.fit(X, Y, batch_size=8, verbose=0)
        network.predict(X, verbose=0)
    outputs = seen["net/dense3"]
    assert [len(o) for o in outputs[:3]] == [8, 8, 4]
    assert all(isinstance(o, (np.ndarray, tf.__internal__.EagerTensor)) for o in outputs)
    assert network.train_function is traced and network.jit_compile == options.get(
        "jit_compile", False
    )
    before = len(outputs)
    network.predict(X, verbose=0)
    assert len(outputs) == before, "a closed tap still records"
    assert "call" not in vars(network.dense3)
    assert expected.shape == (20, 1)


def test_taps_in_a_function_of_ones_own():
    network = NeuralNetwork(name="net")
    network.build((None, 30))

    @tf.function
    def inside(x):
        with tap(network, "dense1") as seen:
            network(x)
        (hidden,) = seen["net/dense1"]  # a tensor of this graph, to go on with
        return tf.reduce_sum(hidden)

    w1, b1 = network.get_weights()[:2]
    expected = np.maximum(X.astype("float64") @ w1 + b1, 0).sum()
    assert float(inside(X)) == pytest.approx(expected, rel=1e-5)
    with tap(network, "dense1") as seen:
        tf.function(lambda x: network(x))(X)
        network(keras.KerasTensor((None, 30)))  # a shape is inferred: nothing to see
    (output,) = seen["net/dense1"]
    assert isinstance(output, np.ndarray)


def test_taps_are_differentiable_and_restore_after_an_error():
    network = NeuralNetwork(name="net")
    network.build((None, 30))
    with tf.GradientTape() as tape, tap(network, "dense2") as seen:
        y = tf.reduce_sum(network(X))
    slope = tape.gradient(y, seen["net/dense2"][0])
    w3 = network.dense3.get_weights()[0]
    p = network(X).numpy()
    np.testing.assert_allclose(slope, p * (1 - p) * w3.T, rtol=1e-4, atol=1e-6)  # s' = s (1 - s)
    with pytest.raises(RuntimeError), tap(network):
        raise RuntimeError
    assert "call" not in vars(network.dense1)
