"""Loops in the many ways in which people write them: what a review of the doctor tried on it."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfbig.parity import diagnose

RNG = np.random.default_rng(5)
X = RNG.normal(size=(12, 4)).astype("float32")
Y = RNG.normal(size=(12, 1)).astype("float32")
SGD = keras.optimizers.SGD


def mlp(optimizer="sgd"):
    model = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(8, "tanh"), keras.layers.Dense(1)]
    )
    model.compile(optimizer, "mse")
    return model


def ids(model, loop=None, **options):
    report = diagnose(model, X, Y, loop=loop, **options)
    assert not report.unexplained, str(report)
    return [cause.id for cause in report.causes]


def by_hand(move):
    def loop(model, x, y, sample_weight):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((model(x, training=True) - y) ** 2)
        variables = model.trainable_variables
        move(list(zip(variables, tape.gradient(loss, variables))))

    return loop


def downhill(pairs):
    for v, g in pairs:
        v.assign_sub(0.1 * g)


def test_updates_by_hand_are_compared_with_slots_that_move():
    """Plain descent is right for plain SGD, and the first step of momentum; the second is not."""
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([1, 2], [0.1, 0.01, 0.001])
    assert ids(mlp(SGD(0.1)), by_hand(downhill)) == []
    assert ids(mlp(SGD(0.1, momentum=0.9)), by_hand(downhill)) == ["D37"]
    assert ids(mlp(SGD(0.1, momentum=0.9, nesterov=True)), by_hand(downhill)) == ["D37"]
    assert ids(mlp(SGD(schedule)), by_hand(downhill)) == ["D35"]

    speeds = {}

    def momentum(pairs):
        for v, g in pairs:
            speeds[v.path] = 0.9 * speeds.get(v.path, 0.0) - 0.1 * g
            v.assign_add(speeds[v.path])

    assert ids(mlp(SGD(0.1, momentum=0.9)), by_hand(momentum)) == []


def test_settings_that_make_no_difference_yet():
    def with_own(own):
        return by_hand(lambda pairs: own.apply_gradients([(g, v) for v, g in pairs]))

    assert ids(mlp(keras.optimizers.Adam(use_ema=True)), with_own(keras.optimizers.Adam())) == [
        "D60"
    ]
    slow = SGD(keras.optimizers.schedules.CosineDecay(0.1, 10**9))
    report = diagnose(mlp(slow), X, Y, loop=with_own(SGD(0.1)))
    assert report.matches and "learning_rate is 0.1 in the loop, and CosineDecay" in report.notes[0]


@pytest.mark.parametrize("shuffle", [True, False])
def test_a_dataset_goes_in_its_own_order(shuffle):
    data = tf.data.Dataset.from_tensor_slices((X, Y))
    data = (data.shuffle(12) if shuffle else data).batch(5)

    def train(model, x, y, epochs):
        for _ in range(epochs):
            for a, b in x:
                by_hand(downhill)(model, a, b, None)

    assert diagnose(mlp(SGD(0.1)), data, train=train).causes == ()
    with pytest.raises(ValueError, match="no end: take a part of it"):
        diagnose(mlp(), data.repeat(), train=train)


def test_rows_that_repeat_are_not_told_apart_and_so_not_judged():
    x = RNG.integers(0, 2, (40, 2)).astype("float32")
    y = x[:, :1] + RNG.normal(size=(40, 1)).astype("float32")

    def train(model, x, y, epochs):
        for _ in range(epochs):
            order = RNG.permutation(len(x))
            for rows in np.split(order, range(8, 40, 8)):
                by_hand(downhill)(model, tf.constant(x[rows]), tf.constant(y[rows]), None)

    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(SGD(0.1), "mse")
    report = diagnose(model, x, y, train=train, batch_size=8)
    assert report.matches and "cannot be told" in report.notes[0]


class Casting(keras.Model):
    """A subclassed model casts its inputs itself, in half precision."""

    def __init__(self):
        super().__init__()
        self.body = keras.layers.Dense(8, "tanh")
        self.head = keras.layers.Dense(1, dtype="float32")

    def call(self, x):
        return self.head(self.body(x))


def test_keras_own_cast_of_the_inputs_is_no_fault():
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = Casting()
    model.compile("sgd", "mse")

    def loop(model, x, y, sample_weight):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum((model(x, training=True) - y) ** 2)
        variables = model.trainable_variables
        model.optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables))

    assert ids(model, loop) == ["D11"]


@pytest.mark.parametrize("reduce", ["sum", "mean"])
@pytest.mark.parametrize("style", ["two gradients", "two passes", "parts", "zeros", "no names"])
def test_unusual_styles(style, reduce):
    """Each is right with the mean, and has D11 and nothing else with the sum."""
    function = {"sum": tf.reduce_sum, "mean": tf.reduce_mean}[reduce]

    def loop(model, x, y, sample_weight):
        variables = model.trainable_variables
        with tf.GradientTape(persistent=True) as tape:
            if style == "two passes":
                halves = [model(x[:6], training=True), model(x[6:], training=True)]
                p = tf.concat(halves, axis=0)
            elif style == "parts" and reduce == "mean":
                p = model.layers[1](model.layers[0](x))
            else:
                p = model(x, training=True)
            loss = function((p - y) ** 2)
            if style == "zeros":
                model(x, training=False)
        if style == "two gradients":
            gradients = tape.gradient(loss, variables[:2]) + tape.gradient(loss, variables[2:])
        elif style == "zeros":
            gradients = tape.gradient(
                loss, variables, unconnected_gradients=tf.UnconnectedGradients.ZERO
            )
        else:
            gradients = tape.gradient(loss, variables)
        if style == "no names":
            model.optimizer.apply(gradients)
        else:
            model.optimizer.apply_gradients(zip(gradients, variables))

    assert ids(mlp(), loop) == ([] if reduce == "mean" else ["D11"])


def test_a_jacobian_in_the_loop_is_let_pass():
    def loop(model, x, y, sample_weight):
        with tf.GradientTape(persistent=True) as tape:
            p = model(x, training=True)
            loss = tf.reduce_mean((p - y) ** 2)
        tape.jacobian(p, model.trainable_variables)
        variables = model.trainable_variables
        model.optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables))

    assert ids(mlp(), loop) == []


def test_what_a_loop_changes_on_the_model_is_put_back():
    model = mlp("adam")
    optimizer = model.optimizer

    def loop(model, x, y, sample_weight):
        model.layers[0].trainable = False
        model.optimizer = SGD(0.1)
        raise KeyError("half way")

    with pytest.raises(ValueError, match="KeyError"):
        diagnose(model, X, Y, loop=loop)
    assert model.optimizer is optimizer and model.layers[0].trainable
    model.fit(X, Y, verbose=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"x": (X, Y), "y": None}, "write diagnose\\(model, \\*batch\\)|y is missing"),
        ({"x": X, "y": None}, "y is missing"),
        ({"x": [[1.0, 2.0]], "y": Y}, "NumPy arrays or tensors"),
        ({"x": X[:0], "y": Y[:0]}, "at least one example"),
        ({"x": iter([X]), "y": Y}, "next\\(iter\\(data\\)\\)"),
        ({"x": X, "y": Y, "steps": 0}, "steps is 0"),
        ({"x": X, "y": Y, "loop": "step"}, "A loop is a function"),
    ],
)
def test_bad_input_gets_a_word(arguments, message):
    with pytest.raises(ValueError, match=message):
        diagnose(mlp(), **arguments)


def test_a_gradient_that_is_nan_in_fit_too_is_no_difference():
    report = diagnose(mlp(), np.full_like(X, np.nan), Y, loop=by_hand(downhill))
    assert report.matches and "fit's gradient is not finite either" in report.notes[0]


def test_a_loss_of_an_earlier_compile():
    """V14: compile without a loss keeps the one before; the loop has the one that is meant."""
    model = mlp()
    model.compile("sgd")

    def loop(model, x, y, sample_weight):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.abs(model(x, training=True) - y) ** 1.5)
        variables = model.trainable_variables
        model.optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables))

    report = diagnose(model, X, Y, loop=loop)
    assert [c.id for c in report.causes] == ["D56"] and "'mse'" in report.causes[0].evidence
