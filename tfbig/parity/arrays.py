"""Lists of arrays, one for each variable or output: sums, norms, differences, least squares."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from tfbig.parity.report import ZERO

Arrays = Sequence[np.ndarray | None]


@dataclasses.dataclass(frozen=True)
class Ledger:
    """How well a list of arrays is a sum of others.

    Attributes:
        coefficients: of each column.
        error: the largest of what is left over, array by array, relative to the array.
    """

    coefficients: Mapping[str, float]
    error: float


def ledger(target: Arrays, columns: Mapping[str, Arrays]) -> Ledger:
    """Least squares of arrays on columns of arrays, in float64; `None` is a zero.

    >>> a, b = np.array([1.0, 0.0]), np.array([0.0, 1.0])
    >>> found = ledger([2 * a + 3 * b], {"a": [a], "b": [b]})
    >>> {name: round(c, 9) for name, c in found.coefficients.items()}, found.error < 1e-12
    ({'a': 2.0, 'b': 3.0}, True)
    """
    shapes = [
        next((a.shape for a in of_one if a is not None), (0,))
        for of_one in zip(target, *columns.values())
    ]
    flat = {name: _flat(column, shapes) for name, column in columns.items()}
    aim = _flat(target, shapes)
    sizes = np.cumsum([0, *(int(np.prod(shape)) for shape in shapes)])
    if not np.isfinite(aim).all() or not all(np.isfinite(c).all() for c in flat.values()):
        return Ledger(dict.fromkeys(columns, float("nan")), float("inf"))
    norms = {name: float(np.linalg.norm(c)) or 1.0 for name, c in flat.items()}
    if flat:
        matrix = np.stack([flat[name] / norms[name] for name in flat], axis=1)
        solution = np.linalg.lstsq(matrix, aim, rcond=1e-10)[0]
        rest = aim - matrix @ solution
        coefficients = {n: float(s / norms[n]) for n, s in zip(flat, solution)}
    else:
        rest, coefficients = aim, {}
    return Ledger(coefficients, _worst(rest, aim, sizes))


def error(a: Arrays, b: Arrays) -> float:
    """The largest |a - b| / max(|a|, 1e-6 x the norm of all of a), array by array."""
    shapes = [next((g.shape for g in pair if g is not None), (0,)) for pair in zip(a, b)]
    aim, other = _flat(a, shapes), _flat(b, shapes)
    if not np.isfinite(aim).all() or not np.isfinite(other).all():
        return 0.0 if np.array_equal(aim, other, equal_nan=True) else float("inf")
    sizes = np.cumsum([0, *(int(np.prod(shape)) for shape in shapes)])
    return _worst(other - aim, aim, sizes)


def _worst(rest: np.ndarray, aim: np.ndarray, sizes: np.ndarray) -> float:
    floor = ZERO * float(np.linalg.norm(aim))
    worst = 0.0
    for begin, end in zip(sizes, sizes[1:]):
        size = float(np.linalg.norm(aim[begin:end]))
        left = float(np.linalg.norm(rest[begin:end]))
        if left <= floor:  # zero but for rounding, both
            continue
        worst = max(worst, left / max(size, floor) if max(size, floor) else float("inf"))
    return worst


def _flat(arrays: Arrays, shapes: Sequence[tuple]) -> np.ndarray:
    parts = [
        np.zeros(int(np.prod(shape))) if a is None else np.asarray(a, "float64").ravel()
        for a, shape in zip(arrays, shapes)
    ]
    return np.concatenate(parts) if parts else np.zeros(0)


def total(arrays: Iterable[np.ndarray | None]) -> np.ndarray | None:
    """The sum in float64 of those that are there; `None` of none."""
    there = [np.asarray(a, "float64") for a in arrays if a is not None]
    return sum(there[1:], start=there[0]) if there else None


def plus(base: Arrays, terms: Iterable[tuple[float, Arrays]]) -> list[np.ndarray | None]:
    """A list of arrays plus multiples of others."""
    result = list(base)
    for factor, arrays in terms:
        result = [
            total([t, None if a is None else factor * np.asarray(a, "float64")])
            for t, a in zip(result, arrays)
        ]
    return result


def norm(arrays: Arrays) -> float:
    """The Euclidean norm of all together.

    >>> norm([np.array([3.0]), None, np.array([4.0])])
    5.0
    """
    return float(
        np.sqrt(sum(np.sum(np.square(a, dtype="float64")) for a in arrays if a is not None))
    )


def without(arrays: Arrays, indices: Sequence[int]) -> list[np.ndarray | None]:
    """The list with some of its arrays left out."""
    return [None if i in set(indices) else a for i, a in enumerate(arrays)]
