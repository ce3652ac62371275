"""The breast-cancer data: the counts of the original paper, no leak, and the file's checksum."""

import sys

import numpy as np
import pytest

from tfbig.data import breast_cancer


def test_data_is_split_without_leak():
    split = breast_cancer(seed=3)
    assert (len(split.x_train), len(split.x_test)) == (455, 114)
    assert split.y_train.sum() + split.y_test.sum() == 212  # malignant is 1
    assert abs(split.y_train.mean() - split.y_test.mean()) < 0.01
    train, test = ({row.tobytes() for row in x} for x in (split.x_train, split.x_test))
    assert not train & test and len(train) == 455
    assert split.feature_names[0] == "mean radius"
    assert np.abs(split.x_train - breast_cancer(seed=4).x_train).max() > 0


def test_no_patient_is_there_twice():
    split = breast_cancer()
    assert len({row.tobytes() for row in np.concatenate([split.x_train, split.x_test])}) == 569


def test_shapes_and_types():
    split = breast_cancer(test_size=100)
    assert split.x_train.shape == (469, 30) and split.x_test.shape == (100, 30)
    assert split.y_train.shape == (469, 1) and split.y_test.shape == (100, 1)
    for array in (split.x_train, split.y_train, split.x_test, split.y_test):
        assert array.dtype == np.float32
    assert len(split.feature_names) == 30


def test_malignant_tumours_are_the_larger_ones():
    """Were the target not turned round, the means would be."""
    split = breast_cancer()
    radius, sick = split.x_train[:, 0], split.y_train[:, 0] == 1
    assert radius[sick].mean() > radius[~sick].mean() + 4


def test_another_file_is_warned_of(monkeypatch):
    monkeypatch.setattr(sys.modules["tfbig.data.breast_cancer"], "SHA256", "0" * 64)
    with pytest.warns(UserWarning, match="scores may differ"):
        assert breast_cancer().x_train.shape == (455, 30)


def test_without_scikit_learn_the_remedy_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match="pip install scikit-learn"):
        breast_cancer()
