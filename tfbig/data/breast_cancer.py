"""Wisconsin diagnostic breast cancer: 569 tumours, 30 features of their cell nuclei.

W. Wolberg, W. Street and O. Mangasarian, 1993, UCI repository, CC-BY-4.0; read from scikit-learn's
package. One row is one patient, and no two rows are the same, so a split by row leaks nothing.
"""

import dataclasses
import hashlib
import warnings
from importlib import resources

import numpy as np

# Of the file in scikit-learn 1.9.1: the expected scores were measured on it.
SHA256 = "fed3eb72d0575ef6192293f5093c6e801b1476b577d0386bf4455504522172ed"


@dataclasses.dataclass(frozen=True)
class Split:
    """Examples to learn from, and others to be judged by.

    Attributes:
        x_train, x_test: features as they were measured, `(examples, features)`, float32.
        y_train, y_test: `(examples, 1)`, float32.
        feature_names: one for each column.
    """

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    feature_names: tuple[str, ...]


def breast_cancer(*, test_size: int = 114, seed: int = 0) -> Split:
    """The data, split at random with the share of malignant tumours alike in both parts.

    Args:
        test_size: how many rows are held out; 114 is a fifth.
        seed: of the split.

    Returns:
        The split; the target is 1 for malignant. (scikit-learn's own target is 1 for benign.)

    Raises:
        ImportError: if scikit-learn is not installed.

    Warns:
        UserWarning: if the file of this scikit-learn is not the one the scores were measured on.

    >>> split = breast_cancer()
    >>> split.x_train.shape, split.x_test.shape, int(split.y_train.sum() + split.y_test.sum())
    ((455, 30), (114, 30), 212)
    """
    try:
        from sklearn.datasets import load_breast_cancer
        from sklearn.model_selection import train_test_split
    except ImportError as error:
        raise ImportError(
            "The breast-cancer data are in scikit-learn: pip install scikit-learn"
        ) from error
    file = resources.files("sklearn.datasets") / "data" / "breast_cancer.csv"
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    if digest != SHA256:
        warnings.warn(
            f"The breast-cancer file of this scikit-learn has SHA-256 {digest}, and {SHA256} was "
            f"expected: scores may differ from the expected ones.",
            stacklevel=2,
        )
    bunch = load_breast_cancer()
    malignant = (1 - bunch.target).astype("float32")[:, None]
    x_train, x_test, y_train, y_test = train_test_split(
        bunch.data.astype("float32"),
        malignant,
        test_size=test_size,
        random_state=seed,
        stratify=malignant,
    )
    return Split(x_train, y_train, x_test, y_test, tuple(map(str, bunch.feature_names)))
