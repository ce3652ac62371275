"""What a recipe shows: histories side by side, scores beside what to expect, curves."""

from collections.abc import Mapping
from typing import Any

import numpy as np

Histories = Mapping[str, Mapping[str, list[float]]]


def histories(of: Histories) -> str:
    """Each epoch a line, each metric a column for each driver, and their largest difference.

    >>> print(histories({"fit": {"loss": [0.5, 0.25]}, "loop": {"loss": [0.5, 0.25]}}))
    epoch   loss fit  loss loop
        1    0.50000    0.50000
        2    0.25000    0.25000
    Largest difference between fit and loop: 0.0e+00
    """
    drivers = list(of)
    metrics = sorted(of[drivers[0]], key=lambda name: (name != "loss", name))
    columns = [(metric, driver) for metric in metrics for driver in drivers]
    headings = [f"{metric} {driver}" for metric, driver in columns]
    widths = [max(10, len(heading)) for heading in headings]
    lines = ["epoch" + "".join(" " + h.rjust(w) for h, w in zip(headings, widths))]
    for epoch in range(len(of[drivers[0]][metrics[0]]) if metrics else 0):
        cells = [f"{of[driver][metric][epoch]:.5f}" for metric, driver in columns]
        line = "".join(" " + cell.rjust(w) for cell, w in zip(cells, widths))
        lines.append(f"{epoch + 1:5d}" + line)
    if len(drivers) == 2:
        a, b = (of[driver] for driver in drivers)
        # Not max(): where a loss is NaN the difference is NaN, in whatever order they come.
        largest = np.max([abs(u - v) for m in metrics for u, v in zip(a[m], b[m])], initial=0.0)
        lines.append(f"Largest difference between {drivers[0]} and {drivers[1]}: {largest:.1e}")
    return "\n".join(lines)


def scores(of: Mapping[str, Any], expected: Mapping[str, tuple[float, float]], count: int) -> str:
    """Each score with its 95 % interval, beside the range to expect."""
    lines = [f"Held out: {count} examples     95 % interval       expected"]
    for name, score in of.items():
        low, high = expected[name]
        verdict = "" if low <= score.value <= high else "   <- outside"
        lines.append(f"{name:12s} {score}      {low:.2f} to {high:.2f}{verdict}")
    return "\n".join(lines)


def curves(of: Histories, title: str) -> Any:
    """The metrics over the epochs, both drivers in one picture, as a matplotlib figure.

    Raises:
        ImportError: if matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator
    except ImportError as error:
        raise ImportError("The picture needs matplotlib: pip install matplotlib") from error
    metrics = sorted(next(iter(of.values())), key=lambda name: (name != "loss", name))
    figure = Figure(figsize=(4.6 * len(metrics), 3.6), layout="constrained")
    panels = figure.subplots(1, len(metrics), squeeze=False)[0]
    styles = {
        "fit": {"color": "#9ec5e8", "linewidth": 6, "label": "model.fit"},
        "loop": {"color": "#c2410c", "marker": "o", "markersize": 4, "label": "hand-written loop"},
    }
    for panel, metric in zip(panels, metrics):
        for driver, history in of.items():
            panel.plot(range(1, len(history[metric]) + 1), history[metric], **styles[driver])
        panel.set(xlabel="epoch", ylabel=metric)
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(alpha=0.25)
    panels[0].legend(frameon=False)
    figure.suptitle(title)
    return figure
