"""Scores against scikit-learn and by hand; the data; the main job on the real data."""

import json
import sys

import keras
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from tfbig import compat, recipes
from tfbig.data import breast_cancer
from tfbig.recipes import run, scores, show


def test_wilson_by_hand():
    """8 of 10, z = 1.96: centre (0.8 + 0.19207) / 1.38415 = 0.71674, half 0.22659."""
    assert scores.wilson(8, 10) == pytest.approx((0.8, 0.49016, 0.94332), abs=1e-4)
    # All of n: low = n / (n + z^2), high = 1.
    assert scores.wilson(10, 10) == pytest.approx((1, 10 / (10 + scores.Z95**2), 1))
    assert np.isnan(scores.wilson(0, 0).value)


def test_auc_is_scikit_learns_ties_too():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 200)
    p = np.round(0.3 * y + rng.random(200), 1)  # many ties
    assert scores.area_under_roc(y, p).value == pytest.approx(roc_auc_score(y, p), abs=1e-12)


def test_delongs_interval_beside_the_bootstrap():
    rng = np.random.default_rng(1)
    y = np.repeat([0, 1], [120, 80])
    p = y + rng.normal(size=200)
    score = scores.area_under_roc(y, p)
    areas = []
    for _ in range(800):
        i = rng.integers(0, 200, 200)
        areas.append(scores.area_under_roc(y[i], p[i]).value)
    # 800 samples know a standard deviation to 2.5 %; 15 % is six of that, for the method's bias.
    assert (score.high - score.low) / (2 * scores.Z95) == pytest.approx(np.std(areas), rel=0.15)


def test_delong_by_hand():
    """Of the sick, 0.35 is above 1/2 of the well and 0.8 above all: variance 1/8, of 2. The well
    mirror it. Standard error sqrt(1/16 + 1/16) = 0.35355; 0.75 + 0.693 is clipped to 1."""
    score = scores.area_under_roc(np.array([0, 0, 1, 1]), np.array([0.1, 0.4, 0.35, 0.8]))
    # 1e-12: a few roundings of float64.
    assert score == pytest.approx((0.75, 0.75 - scores.Z95 * 8**-0.5, 1.0), abs=1e-12)


def test_scores_refuse_what_they_would_misjudge():
    with pytest.raises(ValueError, match="1 of 2 predictions are NaN"):
        scores.diagnosis_scores(np.array([0, 1]), np.array([np.nan, 0.9]))
    with pytest.raises(ValueError, match="2 targets came with 4 predictions"):
        scores.diagnosis_scores(np.array([0, 1]), np.zeros((2, 2)))


def test_diagnosis_scores_by_hand():
    s = scores.diagnosis_scores(
        np.array([[1], [1], [0], [0], [0]]), np.array([[0.9], [0.2], [0.6], [0.1], [0.3]])
    )
    assert [round(s[k].value, 4) for k in ("accuracy", "sensitivity", "specificity", "auc")] == [
        0.6,
        0.5,
        0.6667,
        0.6667,
    ]


def test_the_main_job(tmp_path):
    printed = []
    result = run.train(recipes.load("diagnosis"), output=tmp_path, say=printed.append)
    fit, loop = (result["history"][d] for d in ("fit", "loop"))
    assert len(fit["loss"]) == 10
    for name in fit:
        np.testing.assert_allclose(loop[name], fit[name], rtol=1e-6)
    for name, (low, high) in recipes.load("diagnosis").expected.items():
        assert low <= result["scores"][name].value <= high
    assert json.loads((tmp_path / "parity.json").read_text())["max_relative_error"] <= 1e-6
    text = "\n".join(printed)
    assert "Largest difference between fit and loop" in text and "sensitivity" in text
    assert not list(tmp_path.glob(".*"))
    # The saved model takes raw features, and holds the scaling of the training part alone.
    split = breast_cancer(seed=0)
    model = keras.models.load_model(tmp_path / "model.keras")
    again = scores.diagnosis_scores(split.y_test, model.predict(split.x_test, verbose=0))
    assert again == result["scores"]
    np.testing.assert_allclose(
        model.layers[0].mean.numpy().ravel(), split.x_train.astype("float64").mean(0), rtol=1e-5
    )


@pytest.mark.parametrize("during", ["fit", "loop"])
def test_ctrl_c_saves_what_there_is(tmp_path, monkeypatch, during):
    """Ctrl-C after two epochs of one driver: what the driver before it learnt is kept too."""
    owner = keras.Sequential if during == "fit" else run.Loop
    real = owner.fit

    def interrupted(self, *args, **kwargs):
        real(self, *args, **{**kwargs, "epochs": 2})
        raise KeyboardInterrupt

    for name in compat.FIXES:
        compat.present(name)  # its probe, which training runs first, trains too: it is to be over
    monkeypatch.setattr(owner, "fit", interrupted)
    with pytest.raises(KeyboardInterrupt) as interrupt:
        run.train(recipes.load("diagnosis"), output=tmp_path, epochs=3, say=lambda line: None)
    assert f"Stopped {during} with 2 of 3 epochs" in interrupt.value.__notes__[-1]
    epochs = {"fit": 2} if during == "fit" else {"fit": 3, "loop": 2}
    histories = json.loads((tmp_path / "history.json").read_text())
    assert {name: len(history["loss"]) for name, history in histories.items()} == epochs
    files = ["model.keras"] if during == "fit" else ["model.keras", "model_loop.keras"]
    assert sorted(p.name for p in tmp_path.glob("*.keras")) == files
    # 455 = 14 batches of 32 and one of 7: 15 steps an epoch.
    for file, count in zip(files, epochs.values()):
        model = keras.models.load_model(tmp_path / file)
        assert int(model.optimizer.iterations) == 15 * count
    assert run.seed_of(tmp_path / "model.keras") == 0


def test_ctrl_c_before_the_first_step(tmp_path, monkeypatch):
    def interrupted(self, *args, **kwargs):
        raise KeyboardInterrupt

    for name in compat.FIXES:
        compat.present(name)
    monkeypatch.setattr(keras.Sequential, "fit", interrupted)
    with pytest.raises(KeyboardInterrupt) as interrupt:
        run.train(recipes.load("diagnosis"), output=tmp_path, say=lambda line: None)
    assert "0 of 10 epochs" in interrupt.value.__notes__[-1]


def test_without_matplotlib_only_the_pictures_are_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    printed = []
    run.train(recipes.load("diagnosis"), output=tmp_path, epochs=1, say=printed.append)
    assert "pip install matplotlib" in "\n".join(printed)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "history.json",
        "model.keras",
        "model_loop.keras",
        "parity.json",
        "run.json",
        "scores.json",
    ]


def test_a_nan_is_no_small_difference():
    of = {"fit": {"loss": [0.5, float("nan")]}, "loop": {"loss": [0.5, 0.5]}}
    assert show.histories(of).endswith("loop: nan")


def test_bad_calls(tmp_path):
    with pytest.raises(ValueError, match="no recipe 'diagnoss'. Did you mean 'diagnosis'"):
        recipes.load("diagnoss")
    with pytest.raises(ValueError, match="no driver 'sgd'"):
        run.train(recipes.load("diagnosis"), output=tmp_path, driver="sgd")
    with pytest.raises(ValueError, match="at least 1"):
        run.train(recipes.load("diagnosis"), output=tmp_path, epochs=0)
