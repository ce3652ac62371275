"""Each defect: stock Keras shows it, the fix mends it, the loop never had it."""

import contextlib
import gc
import subprocess
import sys
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfbig import compat
from tfbig.training import Loop

DRIVERS = {
    "stock fit": (lambda model: model.fit, contextlib.nullcontext),
    "fixed fit": (lambda model: model.fit, compat.fixed),
    "loop": (lambda model: Loop(model).fit, contextlib.nullcontext),
}


def needs(name):
    return pytest.mark.skipif(
        not compat.present(name), reason=f"this Keras ({keras.__version__}) has not {name}"
    )


def second_moment(driver):
    """Adam's second moment of a row that a batch holds four times, after one step by hand:

    the loss is the mean over one example of the sum of four equal outputs, so each occurrence has
    gradient 1, the row 4, and v = (1 - beta_2) 4^2 = 0.016. Square by square it is 0.004.
    """
    of, fixed = DRIVERS[driver]
    inputs = keras.Input((4,), dtype="int32")
    table = keras.layers.Embedding(3, 1, name="table")
    model = keras.Model(inputs, keras.ops.sum(table(inputs), axis=(1, 2)))

    model.compile(keras.optimizers.Adam(), loss=lambda y, p: p)
    with fixed():
        of(model)(np.zeros((1, 4), "int32"), np.zeros(1), verbose=0)
    return float(next(v for v in model.optimizer.variables if "velocity" in v.path)[0, 0])


@needs("V2")
@pytest.mark.parametrize(
    ("driver", "expected"), [("stock fit", 0.004), ("fixed fit", 0.016), ("loop", 0.016)]
)
def test_v2_repeated_rows(driver, expected):
    assert second_moment(driver) == pytest.approx(expected, rel=1e-4)  # float32


def of_unknown_length():
    """Six batches of two, whose number TensorFlow cannot know."""
    x = np.ones((12, 3), "float32"), np.ones((12, 1), "float32")
    return (
        tf.data.Dataset.from_tensor_slices(x)
        .batch(2, drop_remainder=True)
        .filter(lambda x, y: True)
    )


@needs("V26")
@pytest.mark.parametrize(("driver", "steps"), [("stock fit", 21), ("fixed fit", 18), ("loop", 18)])
def test_v26_phantom_step(driver, steps):
    of, fixed = DRIVERS[driver]
    dropout = keras.layers.Dropout(0.5, seed=1)
    model = keras.Sequential([dropout, keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    with fixed(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Your input ran out of data")
        warnings.filterwarnings("ignore", message="`shuffle=True` was passed")
        of(model)(of_unknown_length(), epochs=3, verbose=0)
    assert int(model.optimizer.iterations) == steps
    assert int(dropout.seed_generator.state[1]) == steps


@needs("V26")
@pytest.mark.parametrize(("driver", "mean"), [("stock", 6 / 7), ("fixed", 1.0), ("loop", 1.0)])
def test_v26_in_evaluate(driver, mean):
    model = keras.Sequential([keras.layers.Dense(1, kernel_initializer="zeros")])
    model.compile("sgd", "mse")
    fixed = compat.fixed if driver == "fixed" else contextlib.nullcontext
    with fixed(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Your input ran out of data")
        evaluate = Loop(model).evaluate if driver == "loop" else model.evaluate
        assert evaluate(of_unknown_length(), verbose=0) == pytest.approx(mean, rel=1e-5)


class Order(keras.callbacks.Callback):
    """Remembers the examples of each epoch: each has its own number as its only feature."""

    def __init__(self):
        self.epochs, self.seen = [], None

    def on_epoch_begin(self, epoch, logs=None):
        self.seen = []

    def on_epoch_end(self, epoch, logs=None):
        self.epochs.append(self.seen)


def orders(driver, fixed):
    keras.utils.set_random_seed(5)
    spy = Order()

    class Spied(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(1)

        def call(self, x):
            tf.py_function(lambda rows: spy.seen.extend(rows.numpy().ravel().tolist()), [x], [])
            return self.dense(x)

    model = Spied()
    model.compile("sgd", "mse")
    x = np.arange(10.0, dtype="float32")[:, None]
    with compat.fixed("V27") if fixed else contextlib.nullcontext():
        for _ in range(2):
            fit = model.fit if driver == "fit" else Loop(model).fit
            fit(x, x, epochs=2, batch_size=4, callbacks=[spy], verbose=0)
    return spy.epochs


@needs("V27")
def test_v27_stock_fit_and_the_loop_repeat_the_order():
    first = orders("fit", fixed=False)
    assert first == [first[0]] * 4
    assert orders("loop", fixed=False) == first


@needs("V27")
def test_v27_fixed_reshuffles_both_drivers_alike_and_reproducibly():
    epochs = orders("fit", fixed=True)
    assert len({tuple(e) for e in epochs}) == 4
    assert all(sorted(e) == list(range(10)) for e in epochs)
    assert orders("loop", fixed=True) == epochs
    assert orders("fit", fixed=True) == epochs


def test_fixed_restores_also_after_an_error_and_nests():
    apply = keras.optimizers.Adam.apply
    with pytest.raises(RuntimeError), compat.fixed():
        with compat.fixed("V2"):
            assert compat.active("V2")
        assert compat.active("V2") == compat.present("V2")
        raise RuntimeError
    assert keras.optimizers.Adam.apply is apply
    assert not any(map(compat.active, compat.DEFECTS))


def test_fix_stays(monkeypatch):
    """Until the stack that holds it for the rest of the program is closed: here, by the test."""
    with contextlib.ExitStack() as stack:
        monkeypatch.setattr(compat, "_forever", stack)
        compat.fix("V27")
        gc.collect()
        assert compat.active("V27") and not compat.active("V26")
    assert not compat.active("V27")


@pytest.mark.full
def test_fix_stays_in_a_program_of_its_own():
    code = "from tfbig import compat; compat.fix('V27'); assert compat.active('V27')"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_unknown_defect():
    with pytest.raises(ValueError, match="Unknown defect 'V0': choose from V1, V2"):
        compat.fixed("V0").__enter__()
