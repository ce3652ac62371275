"""Each defect by a number: what stock Keras gives, what a hand gives, and that the fix gives it."""

import contextlib
import random
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfbig import compat
from tfbig.compat import (
    replicas,
    trial,
    v01_multi_worker,
    v04b_clip_repeated_rows,
    v05_remat_dropout,
    v06_remat_batch_norm,
    v07_remat_compiled,
    v11_average_micro_steps,
    v13_loss_list,
    v15_distiller_trains_in_evaluate,
    v16_distiller_drops,
    v17_distiller_features,
    v18_fake_quant_arguments,
    v19_int8_litert,
    v20_muon_attention,
    v21_resume_mid_epoch,
    v22_distribution_ignored,
    v23_no_flash_attention,
    v24_lost_logits,
    v25_stateless_apply,
)
from tfbig.training import Loop


def needs(name):
    return pytest.mark.skipif(
        not compat.present(name), reason=f"this Keras ({keras.__version__}) has not {name}"
    )


# One test over all defects, not one for each: emptying Keras between tests is what takes time.


def test_each_defect_has_all_it_needs():
    for name, defect in compat.DEFECTS.items():
        assert defect.__doc__.startswith(f"{name}: ")
        number = defect.__name__.split(".")[-1].split("_")[0].removeprefix("v").removeprefix("0")
        assert f"V{number}" == name
        assert all(text and "\n" not in text for text in (defect.SUMMARY, defect.MEND)), name
        assert defect.WHEN == "" or defect.WHEN.startswith("if "), name
        assert compat.summary(name) == defect.SUMMARY


def test_each_file_is_a_defect():
    folder = Path(compat.__file__).parent
    assert len(list(folder.glob("v[0-9]*.py"))) == len(compat.DEFECTS) == 28
    assert set(compat.FIXES) <= set(compat.DEFECTS)


@pytest.mark.skipif(keras.__version__ != "3.15.1", reason="they were measured on 3.15.1")
def test_keras_3_15_1_has_them_all():
    assert [name for name in compat.DEFECTS if not compat.present(name)] == []


# Beside the other tests of all probes: those that run in processes of their own answer once.
def test_probes_leave_the_seeds_alone():
    tf.random.set_seed(3)
    expected = tf.random.uniform((2,)).numpy()
    tf.random.set_seed(3)
    for defect in compat.DEFECTS.values():
        defect.present()
    tf.random.set_seed(3)
    np.testing.assert_array_equal(tf.random.uniform((2,)).numpy(), expected)


# The defect: (what is measured, what Keras gives, what it should be).
NUMBERS = {
    # (3, 4) / 5, away from the gradient.
    "V4": (lambda: replicas.measured("V4"), [-1.0, -1.0], [-0.6, -0.8]),
    "V4b norm": (lambda: v04b_clip_repeated_rows.measured(clipnorm=1.0), 2.0, 1.0),
    "V4b global": (lambda: v04b_clip_repeated_rows.measured(global_clipnorm=1.0), 2.0, 1.0),
    "V4b value": (lambda: v04b_clip_repeated_rows.measured(clipvalue=1.0), 4.0, 1.0),
    # 0.5 * 0 + 0.5 * 2
    "V6": (v06_remat_batch_norm.measured, 1.5, 1.0),
    # 0.25 * 2 * the mean of 1, 1, 4; Keras takes the mean of 1 and 4.
    "V10 later": (lambda: replicas.measured("V10")["later"], 1.25, 1.0),
    # 1, then (1 + 2) / 2, then (1.5 + 3) / 2
    "V11": (v11_average_micro_steps.measured, 2.46875, 2.25),
    # w = 0.25 * 2 and the loss (1 - 0)^2
    "V12": (lambda: replicas.measured("V12"), [1.0, 2.0], [0.5, 1.0]),
    # 3^2 + 3
    "V13": (v13_loss_list.measured, 9.0, 12.0),
    "V15 evaluate": (lambda: v15_distiller_trains_in_evaluate.measured("evaluate"), 1.0, 0.0),
    "V15 fit": (lambda: v15_distiller_trains_in_evaluate.measured("fit"), 1.5, 1.0),
    # No weight, and L2 of a kernel of 1.
    "V16": (v16_distiller_drops.measured, 5.0, 1.0),
    # Four levels from -1 to 1, moved so that 0 is one of them: -2/3, 0, 2/3, 4/3.
    "V18": (v18_fake_quant_arguments.measured, 0.50196, 2 / 3),
    "V21": (v21_resume_mid_epoch.measured, 10, 6),
    # -ln 1e-7; the loss is the distance of the logits.
    "V24 loss": (lambda: v24_lost_logits.measured()[0], 16.11810, 40.0),
    "V24 gradient": (lambda: v24_lost_logits.measured()[1], [0.0, 0.0], [-1.0, 1.0]),
}

# The defect: (what is tried, what comes of it).
OUTCOMES = {
    "V1": (v01_multi_worker.measured, "ValueError"),
    # The step is to be skipped.
    "V3": (lambda: replicas.measured("V3"), ["-inf"]),
    "V7": (v07_remat_compiled.measured, "ValueError"),
    "V8": (lambda: replicas.measured("V8"), "RuntimeError"),
    "V9": (lambda: replicas.measured("V9"), "RuntimeError"),
    "V10 first": (lambda: replicas.measured("V10")["first"], "InvalidArgumentError"),
    "V17 subclassed": (lambda: v17_distiller_features.measured("subclassed"), "ValueError"),
    "V17 narrow": (lambda: v17_distiller_features.measured("narrow"), 4.0),
    "V17 wide": (lambda: v17_distiller_features.measured("wide"), "InvalidArgumentError"),
    "V19": (lambda: v19_int8_litert.measured("int8"), "ConverterError"),
    "V22": (v22_distribution_ignored.measured, "unsplit"),
    "V23": (v23_no_flash_attention.measured, "ValueError"),
    "V25": (v25_stateless_apply.measured, "ValueError"),
}


def here(cases):
    return {case: cases[case] for case in cases if compat.present(case.split()[0])}


def test_numbers():
    for case, (measure, stock, right) in here(NUMBERS).items():
        measured = measure()
        assert measured == pytest.approx(stock, rel=1e-5), case
        assert measured != pytest.approx(right, rel=1e-2), case


def test_outcomes():
    cases = here(OUTCOMES)
    assert {case: measure() for case, (measure, _) in cases.items()} == {
        case: outcome for case, (_, outcome) in cases.items()
    }


def test_v5_the_gradient_is_that_of_another_mask():
    output, gradient = v05_remat_dropout.measured()
    assert set(output) == set(gradient) == {0.0, 2.0}
    assert (output != gradient).mean() > 0.25


def test_v19_int4_and_float_export():
    assert v19_int8_litert.measured("int4") == v19_int8_litert.measured(None) == ""


def test_v20_the_kernels_have_adamw_and_the_biases_muon():
    output = ["attention_output/kernel", "attention_output/bias"]
    assert v20_muon_attention.measured() == ["query/kernel", "key/kernel", "value/kernel", *output]


# The fixes, beside stock.

DRIVERS = {
    "stock fit": (lambda model: model.fit, contextlib.nullcontext),
    "fixed fit": (lambda model: model.fit, compat.fixed),
    "stock loop": (lambda model: Loop(model).fit, contextlib.nullcontext),
    "fixed loop": (lambda model: Loop(model).fit, compat.fixed),
}


@needs("V4b")
@pytest.mark.parametrize("clip", ["clipnorm", "global_clipnorm", "clipvalue"])
def test_v4b_the_fix_of_v2_mends_it(clip):
    with compat.fixed("V4b"):
        assert compat.active("V2") and compat.active("V4b")
        assert v04b_clip_repeated_rows.measured(**{clip: 1.0}) == pytest.approx(1.0)


def line(**compiled):
    """y = w x + b from zero, at x = 1 and y = 3."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, kernel_initializer="zeros")])
    model.compile(keras.optimizers.SGD(0.5), **compiled)
    return model, (np.ones((1, 1), "float32"), np.full((1, 1), 3.0, "float32"))


@needs("V13")
@pytest.mark.parametrize("driver", DRIVERS)
def test_v13_a_list_of_losses(driver):
    of, fixed = DRIVERS[driver]
    model, data = line(loss=["mse", "mae"])
    with fixed():
        if driver.startswith("fixed"):
            with pytest.raises(ValueError, match=r"2 losses for one output .*their sum: loss=lam"):
                of(model)(*data, verbose=0)
        else:
            assert of(model)(*data, verbose=0).history["loss"] == [9.0]


def test_v13_lists_of_one_loss_and_of_several_outputs_stay():
    x = keras.Input((1,))
    two = keras.Model(x, [keras.layers.Dense(1, kernel_initializer="zeros")(x) for _ in range(2)])
    y = np.full((1, 1), 3.0)
    with compat.fixed("V13"):
        two.compile("sgd", ["mse", "mae"])
        assert two.evaluate(y, [y, y], verbose=0, return_dict=True)["loss"] == 12.0
        model, data = line(loss=["mse"])
        assert model.evaluate(*data, verbose=0) == 9.0
        model, data = line(loss=lambda y, p: keras.ops.square(y - p) + keras.ops.abs(y - p))
        assert model.evaluate(*data, verbose=0) == 12.0


@needs("V14")
@pytest.mark.parametrize("fixed", [False, True])
def test_v14_a_second_compile(fixed):
    with compat.fixed() if fixed else contextlib.nullcontext():
        model, data = line(loss="mse", metrics=["mae"])
        assert model.evaluate(*data, verbose=0, return_dict=True) == {"loss": 9.0, "mae": 3.0}
        model.compile("sgd", "mse")
        logs = {"loss": 9.0} if fixed else {"loss": 9.0, "mae": 3.0}
        assert model.evaluate(*data, verbose=0, return_dict=True) == logs
        model.compile("sgd")
        if fixed:
            with pytest.raises(ValueError, match="No loss to compute"):
                model.evaluate(*data, verbose=0)
            with pytest.raises(ValueError, match="No loss to compute"):
                Loop(model).fit(*data, verbose=0)
        else:
            assert model.evaluate(*data, verbose=0, return_dict=True) == logs


def test_v14_saved_models_keep_their_compile(tmp_path):
    with compat.fixed("V14"):
        model, data = line(loss="mse", metrics=["mae"])
        model.evaluate(*data, verbose=0)
        model.save(tmp_path / "m.keras")
        loaded = keras.models.load_model(tmp_path / "m.keras")
        assert loaded.evaluate(*data, verbose=0, return_dict=True) == {"loss": 9.0, "mae": 3.0}


def classify(driver, policy, activation, loss, **compiled):
    """Loss and kernel after a step of SGD(1.0) at logits (-20, 20), of which the first is true."""
    of, fixed = DRIVERS[driver]
    with fixed():
        twenty = keras.initializers.Constant(20 * np.eye(2))
        last = keras.layers.Dense(2, activation, kernel_initializer=twenty, dtype=policy)
        model = keras.Sequential([keras.Input((2,)), last])
        model.compile(keras.optimizers.SGD(1.0), loss, **compiled)
        x, y = np.array([[-1.0, 1.0]], "float32"), np.array([[1.0, 0.0]], "float32")
        y = np.zeros((1, 1), "int32") if loss.startswith("sparse") else y
        history = of(model)(x, y, verbose=0)
    return history.history["loss"][0], last.kernel.numpy().tolist()


@needs("V24")
@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("driver", DRIVERS)
def test_v24_softmax_under_mixed_precision(driver, policy):
    """By hand: the loss is 40, its gradient by the logits (-1, 1), by the kernel (1, -1; -1, 1)."""
    for loss in ("categorical_crossentropy", "sparse_categorical_crossentropy"):
        right = (pytest.approx(40.0), [[21.0 - 2, 1.0], [1.0, 19.0]])
        saturated = (pytest.approx(16.1181), [[20.0, 0.0], [0.0, 20.0]])
        stays_right = policy == "float32" or driver.startswith("fixed")
        assert classify(driver, policy, "softmax", loss) == (right if stays_right else saturated)


@needs("V24")
@pytest.mark.parametrize(("driver", "loss"), [("stock fit", 16.118), ("fixed fit", 20.0)])
def test_v24_sigmoid_under_mixed_precision(driver, loss):
    """Two sure mistakes at logits -20 and 20: the mean of 20 and 20."""
    measured, _ = classify(driver, "mixed_float16", "sigmoid", "binary_crossentropy")
    assert measured == pytest.approx(loss, rel=2e-2)


@needs("V24")
def test_v24_eager_tensors_do_not_tell_where_they_come_from():
    args = ("fixed fit", "mixed_float16", "softmax", "categorical_crossentropy")
    assert classify(*args, run_eagerly=True)[0] == pytest.approx(16.1181)


@needs("V24")
def test_v24_probabilities_of_ones_own_stay_probabilities():
    """A cast by way of integers, and a mixture: nothing to go back to."""
    logits, y = tf.constant([[-20.0, 20.0]]), tf.constant([[1.0, 0.0]])

    def loss(change):
        crossentropy = keras.losses.CategoricalCrossentropy()
        return float(tf.function(lambda: crossentropy(y, change(keras.ops.softmax(logits))))())

    changes = [
        lambda p: tf.cast(tf.cast(p, "int32"), "float32"),
        lambda p: 0.5 * p + 0.25,
        lambda p: tf.reshape(p, (1, 2)),
    ]
    stock = [loss(change) for change in changes]
    with compat.fixed("V24"):
        assert [loss(change) for change in changes] == stock
        assert loss(lambda p: tf.cast(tf.cast(p, "float64"), "float32")) == 40.0
        one = keras.losses.CategoricalCrossentropy(from_logits=True)
        assert float(one(y, logits)) == 40.0


def test_a_defect_without_a_fix_says_what_to_do():
    with pytest.raises(ValueError, match="V5 has no fix here. Instead: keep layers"):
        compat.fixed("V5").__enter__()
    assert not compat.active("V5")


# The probes.


def test_traceless():
    def seeded():
        keras.utils.set_random_seed(0)

    def drawn():
        return random.random(), np.random.rand(), float(tf.random.uniform(()))

    keras.config.set_dtype_policy("mixed_float16")
    keras.layers.Dense(1)
    seeded()
    expected = drawn()
    seeded()
    with pytest.raises(RuntimeError), trial.traceless():
        assert keras.config.dtype_policy().name == "float32"
        tf.random.set_seed(8)
        keras.Sequential([keras.layers.Dense(1), keras.layers.Dropout(0.5)])(np.ones((1, 1)))
        drawn()
        raise RuntimeError
    assert drawn() == expected
    assert keras.config.dtype_policy().name == "mixed_float16"
    assert keras.layers.Dense(1).name == "dense_1"


def test_traceless_without_a_seed():
    from tensorflow.python.eager import context

    state = vars(context.context())
    before = {key: state.pop(key) for key in ("_seed", "_rng") if key in state}
    try:
        with trial.traceless():
            tf.random.set_seed(8)
        assert "_rng" not in state
    finally:
        state.update(before)


def test_a_probe_that_does_not_run_is_no_answer():
    with pytest.raises(RuntimeError, match="A probe failed in its process:(.|\n)*no such thing"):
        replicas.answer(replicas.child("raise SystemExit('no such thing')"))


def test_a_probe_that_hangs_is_ended(monkeypatch):
    monkeypatch.setattr(replicas, "LIMIT_S", 0.5)
    with pytest.raises(RuntimeError, match="longer than 0.5 s"):
        replicas.answer(replicas.child("import time; time.sleep(60)"))
