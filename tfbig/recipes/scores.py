"""Scores of a diagnosis, each with the interval that its number of patients allows."""

import math
from typing import NamedTuple

import numpy as np

Z95 = 1.959963984540054  # two-sided 95 %


class Score(NamedTuple):
    """A value between 0 and 1, and its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


def wilson(successes: int, trials: int) -> Score:
    """A share with the interval of Wilson (1927), which is right near 0 and 1 too.

    >>> print(wilson(8, 10))
    0.800 (0.490 to 0.943)
    """
    if trials == 0:
        return Score(math.nan, 0.0, 1.0)
    share, z2 = successes / trials, Z95**2
    centre = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    spread = share * (1 - share) / trials + z2 / (4 * trials**2)
    half = Z95 * math.sqrt(spread) / (1 + z2 / trials)
    return Score(share, max(0.0, centre - half), min(1.0, centre + half))


def area_under_roc(y: np.ndarray, probability: np.ndarray) -> Score:
    """The probability that a sick patient is ranked above a healthy one; DeLong's interval (1988).

    Args:
        y: 1 for sick, `(patients,)`.
        probability: or any score that ranks, `(patients,)`.

    >>> area_under_roc(np.array([0, 0, 1, 1]), np.array([0.1, 0.4, 0.35, 0.8])).value
    0.75
    """
    sick, well = probability[y == 1], probability[y == 0]
    if not len(sick) or not len(well):
        return Score(math.nan, 0.0, 1.0)
    above = (sick[:, None] > well) + 0.5 * (sick[:, None] == well)  # (sick, well)
    area = float(above.mean())
    variance = 0.0
    for placements in (above.mean(axis=1), above.mean(axis=0)):
        if len(placements) > 1:
            variance += float(placements.var(ddof=1)) / len(placements)
    half = Z95 * math.sqrt(variance)
    return Score(area, max(0.0, area - half), min(1.0, area + half))


def diagnosis_scores(
    y: np.ndarray, probability: np.ndarray, threshold: float = 0.5
) -> dict[str, Score]:
    """Accuracy, AUC, sensitivity and specificity of a diagnosis.

    Args:
        y: 1 for sick, `(patients,)` or `(patients, 1)`.
        probability: of being sick, of the same shape.
        threshold: above which a patient is called sick.

    Raises:
        ValueError: if targets and predictions differ in number, or a prediction is NaN.
    """
    y, probability = np.ravel(y) > 0.5, np.ravel(probability)
    if len(y) != len(probability):
        raise ValueError(f"{len(y)} targets came with {len(probability)} predictions: one for each")
    if np.isnan(probability).any():  # NaN > threshold is False: it would count as healthy
        raise ValueError(
            f"{int(np.isnan(probability).sum())} of {len(y)} predictions are NaN: the training "
            f"diverged; lower the learning rate"
        )
    called = probability > threshold
    return {
        "accuracy": wilson(int((called == y).sum()), len(y)),
        "auc": area_under_roc(y.astype(int), probability),
        "sensitivity": wilson(int((called & y).sum()), int(y.sum())),
        "specificity": wilson(int((~called & ~y).sum()), int((~y).sum())),
    }
