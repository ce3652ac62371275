"""The report of a comparison: a row for each variable, as a table, as HTML and as a picture."""

import dataclasses
import html
from collections.abc import Sequence
from typing import Any

import numpy as np

# Below this share of the global gradient norm a gradient is zero but for rounding: float32 sums of
# terms that cancel leave about 1e-7.
ZERO = 1e-6


@dataclasses.dataclass(frozen=True)
class Row:
    """The two gradients of one variable: `a` of `model.fit`, `b` of the loop.

    Attributes:
        path: of the variable.
        norm_a, norm_b: |a| and |b|, Euclidean; `None` where there is no gradient.
        ratio: |b| / |a|.
        cosine: of the angle between a and b.
        error: |a - b| / max(|a|, 1e-6 x the global norm of fit's gradient).
        is_zero: whether both are zero but for rounding.
    """

    path: str
    norm_a: float | None
    norm_b: float | None
    ratio: float
    cosine: float
    error: float
    is_zero: bool


def rows(
    paths: Sequence[str], a: Sequence[np.ndarray | None], b: Sequence[np.ndarray | None]
) -> tuple[Row, ...]:
    """Compares two lists of gradients, in float64.

    >>> row, = rows(["w"], [np.array([3.0, 4.0])], [np.array([6.0, 8.0])])
    >>> row.norm_a, row.ratio, row.cosine, row.error
    (5.0, 2.0, 1.0, 1.0)
    """
    global_norm = float(np.sqrt(sum(np.sum(_f64(g) ** 2) for g in a if g is not None)))
    return tuple(_row(p, u, v, global_norm) for p, u, v in zip(paths, a, b, strict=True))


def _f64(g: np.ndarray) -> np.ndarray:
    return np.asarray(g, "float64").ravel()


def _row(path: str, a: np.ndarray | None, b: np.ndarray | None, global_norm: float) -> Row:
    if a is None and b is None:
        return Row(path, None, None, 1.0, 1.0, 0.0, True)
    if a is None or b is None:
        norm_a = None if a is None else float(np.linalg.norm(_f64(a)))
        norm_b = None if b is None else float(np.linalg.norm(_f64(b)))
        # A gradient that is missing is a zero gradient: no difference if the other is zero too.
        there = norm_a if norm_b is None else norm_b
        zero = there is not None and bool(there <= ZERO * global_norm)
        return Row(path, norm_a, norm_b, float("nan"), float("nan"), 0.0 if zero else 1.0, zero)
    u, v = _f64(a), _f64(b)
    norm_a, norm_b = float(np.linalg.norm(u)), float(np.linalg.norm(v))
    is_zero = bool(max(norm_a, norm_b) <= ZERO * global_norm)
    difference, floor = float(np.linalg.norm(u - v)), max(norm_a, ZERO * global_norm)
    error = difference / floor if floor else (0.0 if difference == 0 else float("inf"))
    if np.isnan(error):
        error = float("inf")
    product = norm_a * norm_b
    cosine = min(1.0, float(u @ v) / product) if product else float("nan")
    return Row(
        path, norm_a, norm_b, norm_b / norm_a if norm_a else float("nan"), cosine, error, is_zero
    )


@dataclasses.dataclass(frozen=True)
class Report:
    """What `compare` found.

    Attributes:
        rows: one for each trainable variable.
        tolerance: the largest error that counts as equal.
        independent: whether the two gradients come from two pieces of code. A model with a
            `train_step` of its own has that one step called by both.
    """

    rows: tuple[Row, ...]
    tolerance: float
    independent: bool = True

    @property
    def compared(self) -> tuple[Row, ...]:
        """The rows with a gradient to compare."""
        return tuple(row for row in self.rows if not row.is_zero)

    @property
    def zero_gradient(self) -> tuple[Row, ...]:
        """The rows whose gradient is zero but for rounding (attention's key bias, a bias before
        BatchNorm): their rounding noise is no difference."""
        return tuple(row for row in self.rows if row.is_zero)

    @property
    def max_relative_error(self) -> float:
        """The largest error of all compared variables."""
        return max((row.error for row in self.compared), default=0.0)

    @property
    def matches(self) -> bool:
        """Whether all gradients agree within the tolerance."""
        return self.max_relative_error <= self.tolerance

    @property
    def verdict(self) -> str:
        """The result in one line."""
        if self.matches:
            said = f"The gradients are the same: largest error {self.max_relative_error:.1e}"
        else:
            worst = max(self.compared, key=lambda row: row.error)
            said = f"The gradients differ: largest error {worst.error:.1e}, of {worst.path}"
        said += f" (tolerance {self.tolerance:.0e})."
        if not self.independent:
            said += (
                " The model has a train_step of its own, which both drivers call: its gradients"
                " have no independent witness."
            )
        return said

    def table(self) -> list[list[str]]:
        """The rows as text, after a row of headings."""
        heading = ["variable", "|fit|", "|loop|", "ratio", "cosine", "error"]
        lines = [[*_cells(row), f"{row.error:.1e}"] for row in self.compared]
        return [heading, *lines, *([*_cells(row), "zero"] for row in self.zero_gradient)]

    def __str__(self) -> str:
        cells = self.table()
        widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
        lines = [
            line[0].ljust(widths[0])
            + "".join("  " + cell.rjust(width) for cell, width in zip(line[1:], widths[1:]))
            for line in cells
        ]
        return "\n".join([self.verdict, "", *lines])

    def _repr_html_(self) -> str:
        return self.to_html()

    def to_html(self) -> str:
        """The verdict and the table, for a notebook."""
        heading, *lines = self.table()
        colour = "#1a7f37" if self.matches else "#cf222e"
        head = "".join(f"<th style='text-align:left'>{html.escape(c)}</th>" for c in heading)
        body = "".join(
            "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in line) + "</tr>"
            for line in lines
        )
        return (
            f"<p><b style='color:{colour}'>{html.escape(self.verdict)}</b></p>"
            f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        )

    def to_json(self) -> dict[str, Any]:
        """The report as plain values; a number that is not finite is `None`."""
        return {
            "matches": self.matches,
            "max_relative_error": _finite(self.max_relative_error),
            "tolerance": self.tolerance,
            "independent": self.independent,
            "variables": [
                {
                    key: _finite(value) if isinstance(value, float) else value
                    for key, value in dataclasses.asdict(row).items()
                }
                for row in self.rows
            ],
        }

    def plot(self) -> Any:
        """Both norms of each variable, and the error, as a matplotlib figure.

        Raises:
            ImportError: if matplotlib is not installed.
        """
        try:
            from matplotlib.figure import Figure
        except ImportError as error:
            raise ImportError("The picture needs matplotlib: pip install matplotlib") from error
        figure = Figure(figsize=(9, 1.2 + 0.32 * len(self.rows)), layout="constrained")
        norms, errors = figure.subplots(1, 2, sharey=True)
        names = [row.path for row in self.rows]
        norms.plot(
            [row.norm_a or np.nan for row in self.rows],
            names,
            "o",
            mfc="none",
            ms=9,
            label="model.fit",
        )
        norms.plot([row.norm_b or np.nan for row in self.rows], names, "x", label="loop")
        norms.set(xscale="log", xlabel="norm of the gradient")
        norms.invert_yaxis()
        norms.legend()
        # What is exactly equal has no place on a logarithmic axis: it is drawn at its left edge.
        left = 1e-10
        errors.barh(names, [max(min(row.error, 1e6), left) for row in self.rows], left=0)
        errors.axvline(self.tolerance, color="tab:red", linestyle="--", label="tolerance")
        errors.set(xscale="log", xlim=(left, None), xlabel="relative error")
        errors.legend()
        figure.suptitle(self.verdict.split(" (")[0])
        return figure


def _cells(row: Row) -> list[str]:
    def number(value: float | None, form: str) -> str:
        return "none" if value is None else format(value, form)

    return [
        row.path,
        number(row.norm_a, ".4e"),
        number(row.norm_b, ".4e"),
        format(row.ratio, ".6f"),
        format(row.cosine, ".6f"),
    ]


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
