"""Scores against scikit-learn and by hand; the data; the main job on the real data."""

import json

import keras
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from tfbig import compat, recipes
from tfbig.data import breast_cancer
from tfbig.recipes import run, scores


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


def test_data_is_split_without_leak():
    split = breast_cancer(seed=3)
    assert (len(split.x_train), len(split.x_test)) == (455, 114)
    assert split.y_train.sum() + split.y_test.sum() == 212  # malignant is 1
    assert abs(split.y_train.mean() - split.y_test.mean()) < 0.01
    train, test = ({row.tobytes() for row in x} for x in (split.x_train, split.x_test))
    assert not train & test and len(train) == 455
    assert split.feature_names[0] == "mean radius"
    assert np.abs(split.x_train - breast_cancer(seed=4).x_train).max() > 0


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


def test_ctrl_c_saves_what_there_is(tmp_path, monkeypatch):
    def interrupted(self, *args, **kwargs):
        real(self, *args, **{**kwargs, "epochs": 2})
        raise KeyboardInterrupt

    real = keras.Model.fit
    for name in compat.DEFECTS:
        compat.present(name)  # its probe trains too, and is to be over
    monkeypatch.setattr(keras.Sequential, "fit", interrupted)
    with pytest.raises(KeyboardInterrupt) as interrupt:
        run.train(recipes.load("diagnosis"), output=tmp_path, say=lambda line: None)
    assert "Saved the model so far" in interrupt.value.__notes__[-1]
    assert len(json.loads((tmp_path / "history.json").read_text())["fit"]["loss"]) == 2
    assert keras.models.load_model(tmp_path / "model.keras").count_params() == 431


def test_bad_calls(tmp_path):
    with pytest.raises(ValueError, match="no recipe 'diagnoss'. Did you mean 'diagnosis'"):
        recipes.load("diagnoss")
    with pytest.raises(ValueError, match="no driver 'sgd'"):
        run.train(recipes.load("diagnosis"), output=tmp_path, driver="sgd")
    with pytest.raises(ValueError, match="at least 1"):
        run.train(recipes.load("diagnosis"), output=tmp_path, epochs=0)
