"""The loop does what `fit` does with every kind of data, callback and argument."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfbig.training import Loop

X = np.random.default_rng(0).normal(size=(26, 4)).astype("float32")
Y = (X[:, :1] > 0).astype("float32")


def build(**options):
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(5, "relu"),
            keras.layers.Dropout(0.2),
            keras.layers.Dense(1, "sigmoid"),
        ]
    )
    options = {"optimizer": "adam", "metrics": ["accuracy"], "weighted_metrics": ["mae"], **options}
    model.compile(loss="binary_crossentropy", **options)
    return model


def assert_like_fit(fit_arguments, **options):
    """Trains by both, and returns both models; `fit_arguments` makes the arguments anew."""
    models, histories = [], []
    for driver in ("fit", "loop"):
        # A callable makes an optimizer anew: one belongs to one model.
        model = build(**{k: v() if callable(v) else v for k, v in options.items()})
        args, kwargs = fit_arguments()
        with warnings.catch_warnings():
            # Four batches are not three steps in each of two epochs: both drivers say so.
            warnings.filterwarnings("ignore", message="Your input ran out of data")
            warnings.filterwarnings("ignore", message="`shuffle=True` was passed")
            history = (model.fit if driver == "fit" else Loop(model).fit)(
                *args, **{"verbose": 0, "epochs": 2, **kwargs}
            )
        models.append(model)
        histories.append(history)
    assert histories[0].epoch == histories[1].epoch
    assert list(histories[0].history) == list(histories[1].history)
    for name, values in histories[0].history.items():
        np.testing.assert_allclose(histories[1].history[name], values, rtol=1e-6, err_msg=name)
    for u, v in zip(models[0].variables, models[1].variables):
        # The same operations in the same order; 1e-6 is a few roundings.
        np.testing.assert_allclose(v.numpy(), u.numpy(), rtol=1e-6, atol=1e-7, err_msg=u.path)
    return models


class Data(keras.utils.PyDataset):
    """Four batches, in another order after each epoch."""

    def __init__(self):
        super().__init__()
        self.offset = 0

    def __len__(self):
        return 4

    def __getitem__(self, index):
        rows = slice(6 * ((index + self.offset) % 4), None)
        return X[rows][:6], Y[rows][:6]

    def on_epoch_end(self):
        self.offset += 1


def generator(batches=8):
    for step in range(batches):
        yield X[step : step + 6], Y[step : step + 6], np.full(6, 0.5 + step)


def dataset():
    return tf.data.Dataset.from_tensor_slices((X, Y)).batch(8)


ARGUMENTS = {
    "arrays": lambda: ((X, Y), {"batch_size": 8}),
    "float64": lambda: ((X.astype("float64"), Y), {"batch_size": 8}),
    "tensors": lambda: ((tf.constant(X), tf.constant(Y)), {"batch_size": 13}),
    "one_column_less": lambda: ((X, Y[:, 0]), {"batch_size": 8}),
    "default_batch_size": lambda: ((X, Y), {}),
    "unshuffled": lambda: ((X, Y), {"shuffle": False, "batch_size": 8}),
    "shuffled_batches": lambda: ((X, Y), {"shuffle": "batch", "batch_size": 8}),
    "sample_weight": lambda: ((X, Y), {"sample_weight": np.linspace(0, 2, 26), "batch_size": 8}),
    "class_weight": lambda: ((X, Y), {"class_weight": {0: 0.2, 1: 3.0}, "batch_size": 8}),
    "validation_split": lambda: ((X, Y), {"validation_split": 0.3, "batch_size": 8}),
    "validation_data": lambda: (
        (X, Y),
        {"validation_data": (X[:9], Y[:9], np.arange(9.0)), "validation_batch_size": 4},
    ),
    "validation_freq": lambda: (
        (X, Y),
        {"validation_data": (X, Y), "validation_freq": [2], "epochs": 3},
    ),
    "validation_dataset": lambda: ((X, Y), {"validation_data": dataset(), "validation_steps": 2}),
    "initial_epoch": lambda: ((X, Y), {"initial_epoch": 2, "epochs": 4}),
    "steps_per_epoch": lambda: ((X, Y), {"steps_per_epoch": 3, "batch_size": 8}),
    "dataset": lambda: ((dataset(),), {}),
    "dataset_steps_per_epoch": lambda: ((dataset().repeat(),), {"steps_per_epoch": 5}),
    "dataset_class_weight": lambda: ((dataset(),), {"class_weight": {0: 0.2, 1: 3.0}}),
    # Unshuffled: Keras shuffles in a thread, with the generator that seeds are drawn from.
    "py_dataset": lambda: ((Data(),), {"shuffle": False}),
    "generator": lambda: ((generator(),), {"steps_per_epoch": 4}),
}


@pytest.mark.parametrize("kind", ARGUMENTS)
def test_like_fit_on_all_kinds_of_data(kind):
    assert_like_fit(ARGUMENTS[kind])


def scheduled():
    return keras.optimizers.SGD(keras.optimizers.schedules.CosineDecay(0.5, 9))


@pytest.mark.parametrize(
    "options",
    [
        {"steps_per_execution": 3},
        {"run_eagerly": True},
        {"jit_compile": True},
        {"optimizer": scheduled},
    ],
    ids=["steps_per_execution", "eager", "xla", "schedule"],
)
@pytest.mark.parametrize("kind", ["arrays", "dataset"])
def test_like_fit_in_all_modes(kind, options):
    assert_like_fit(ARGUMENTS[kind], **options)


@pytest.mark.parametrize(
    "options",
    [
        {"weight_decay": 0.1, "clipnorm": 0.1},
        {"global_clipnorm": 0.05},
        {"clipvalue": 0.001},
        {"use_ema": True, "ema_momentum": 0.5},
        {"gradient_accumulation_steps": 3},
        {"loss_scale_factor": 64.0},
    ],
    ids=str,
)
def test_like_fit_with_all_that_an_optimizer_does(options):
    results = []
    for driver in ("fit", "loop"):
        model = build(optimizer=keras.optimizers.Adam(0.01, **options))
        (model.fit if driver == "fit" else Loop(model).fit)(X, Y, 8, 4, verbose=0)
        results.append(model.get_weights())
    for u, v in zip(*results):
        np.testing.assert_allclose(v, u, rtol=1e-6, atol=1e-7)


def test_the_scale_of_a_loss_is_the_current_one():
    """SGD(1) on w x, x = 1, y = 0: w <- w - 2 w = -w, whatever the scale, which doubles."""
    model = keras.Sequential([keras.layers.Dense(1, use_bias=False, kernel_initializer="ones")])
    inner = keras.optimizers.SGD(1.0)
    scaling = keras.optimizers.LossScaleOptimizer(inner, initial_scale=8, dynamic_growth_steps=1)
    model.compile(scaling, "mse")
    Loop(model).fit(np.ones((3, 1)), np.zeros((3, 1)), batch_size=1, verbose=0)
    assert model.get_weights()[0] == -1.0
    assert float(scaling.dynamic_scale) == 64


class Counting(keras.callbacks.Callback):
    """Writes down what it hears, and stops when told."""

    def __init__(self, stop_at=None):
        super().__init__()
        self.heard, self.stop_at = [], stop_at

    def on_train_batch_begin(self, batch, logs=None):
        self.heard.append(("begin", batch))

    def on_train_batch_end(self, batch, logs=None):
        self.heard.append(("end", batch, round(logs["loss"], 5)))
        if batch == self.stop_at:
            self.model.stop_training = True

    def on_test_batch_end(self, batch, logs=None):
        self.heard.append(("test", batch))

    def on_epoch_end(self, epoch, logs=None):
        self.heard.append(("epoch", epoch, sorted(logs)))


@pytest.mark.parametrize("kind", ["validation_data", "dataset", "unshuffled"])
@pytest.mark.parametrize("steps_per_execution", [1, 3])
def test_a_callback_hears_what_it_hears_in_fit(kind, steps_per_execution):
    """Whether it stops the training or not; one after the other, as the step is traced then."""
    heard = {None: [], 2: []}
    for driver in ("fit", "loop"):
        model = build(steps_per_execution=steps_per_execution)
        fit = model.fit if driver == "fit" else Loop(model).fit
        for stop_at in heard:
            counting = Counting(stop_at)
            args, kwargs = ARGUMENTS[kind]()
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="`shuffle=True` was passed")
                fit(*args, **{"verbose": 0, "epochs": 2, **kwargs, "callbacks": [counting]})
            heard[stop_at].append(counting.heard)
    assert heard[None][0] == heard[None][1] and heard[2][0] == heard[2][1]
    assert heard[None][1][-1][:2] == ("epoch", 1)
    if steps_per_execution == 1 and kind != "validation_data":
        assert heard[2][1][-1][1] == 0, "it went on into the second epoch"


def test_all_of_keras_callbacks(tmp_path):
    model = build()
    callbacks = keras.callbacks
    Loop(model).fit(
        X,
        Y,
        epochs=6,
        verbose=0,
        validation_split=0.2,
        callbacks=[
            callbacks.ModelCheckpoint(tmp_path / "best.keras", save_best_only=True),
            callbacks.BackupAndRestore(tmp_path / "backup"),
            callbacks.CSVLogger(tmp_path / "log.csv"),
            callbacks.EarlyStopping(patience=1, min_delta=10.0),
            callbacks.LearningRateScheduler(lambda epoch: 0.01 / (epoch + 1)),
            callbacks.ReduceLROnPlateau(patience=1),
            callbacks.TerminateOnNaN(),
            callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: None),
        ],
    )
    # min_delta 10: the second epoch is no improvement, and patience 1 ends there.
    assert len(model.history.epoch) == 2
    assert len((tmp_path / "log.csv").read_text().splitlines()) == 3
    assert keras.models.load_model(tmp_path / "best.keras").count_params() == 31


@pytest.mark.parametrize("kind", ["validation_data", "dataset"])
def test_evaluate(kind):
    model = build()
    data = (X, Y, 8) if kind == "validation_data" else (dataset(),)
    expected = model.evaluate(*data, verbose=0)
    np.testing.assert_allclose(Loop(model).evaluate(*data, verbose=0), expected, rtol=1e-6)
    named = Loop(model).evaluate(*data, verbose=0, return_dict=True)
    assert named == pytest.approx(model.evaluate(*data, verbose=0, return_dict=True), rel=1e-6)


def test_a_train_step_of_ones_own_is_called_on_each_batch():
    class Own(keras.Sequential):
        def train_step(self, data):
            calls.assign_add(1)
            return {"mine": tf.cast(calls, "float32")}

    calls = tf.Variable(0)
    model = Own([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    history = Loop(model).fit(X, Y, batch_size=8, epochs=2, verbose=0)
    assert int(calls) == 8 and history.history == {"mine": [4.0, 8.0]}


def test_compile_again_is_heard():
    model = build(optimizer=keras.optimizers.SGD(0.0))
    loop, before = Loop(model), model.get_weights()
    loop.fit(X, Y, verbose=0)
    np.testing.assert_array_equal(model.get_weights()[0], before[0])
    model.compile(keras.optimizers.SGD(0.1), "mse")
    loop.fit(X, Y, verbose=0)
    assert np.abs(model.get_weights()[0] - before[0]).max() > 1e-4


def test_progress_bar(capsys):
    Loop(build()).fit(X, Y, batch_size=8, epochs=2, verbose=2)
    out = capsys.readouterr().out
    assert "Epoch 2/2" in out and "4/4" in out and "accuracy" in out


def test_ctrl_c_ends_the_epoch_with_the_history_so_far():
    class CtrlC(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if self.model.optimizer.iterations == 6:  # the second step of the second epoch
                raise KeyboardInterrupt

    model = build()
    with pytest.raises(KeyboardInterrupt) as interrupt:
        Loop(model).fit(X, Y, batch_size=8, epochs=9, verbose=0, callbacks=[CtrlC()])
    assert len(model.history.history["loss"]) == 2
    assert "Interrupted in epoch 2 of 9" in interrupt.value.__notes__[0]
    assert "initial_epoch=1" in interrupt.value.__notes__[0]


def test_bad_input():
    with pytest.raises(ValueError, match=r"Call model.compile\(optimizer, loss\) before"):
        Loop(keras.Sequential([keras.layers.Dense(1)])).fit(X, Y)
    with pytest.raises(TypeError, match="was given Dense"):
        Loop(keras.layers.Dense(1))
    with pytest.raises(ValueError, match="Data cardinality is ambiguous"):
        Loop(build()).fit(X, Y[:-1], verbose=0)
    with pytest.raises(ValueError, match="cannot `class_weight` and `sample_weight`"):
        Loop(build()).fit(X, Y, sample_weight=Y[:, 0], class_weight={0: 1.0}, verbose=0)
    with pytest.warns(UserWarning, match="x holds NaN in 1 of 26 rows .the first is row 3"):
        Loop(build()).fit(np.where(np.arange(26)[:, None] == 3, np.nan, X), Y, verbose=0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        history = Loop(build()).fit(generator(2), steps_per_epoch=4, verbose=0)
    assert any("ran out of data" in str(w.message) for w in caught)
    assert len(history.history["loss"]) == 1
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    with strategy.scope():
        model = build()
    with pytest.raises(ValueError, match="built under MirroredStrategy. Use model.fit"):
        Loop(model)
