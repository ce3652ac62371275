"""The catalogue: each cause once, beside the code that tells it.

A file is a stage of the step; its rows are the causes in that stage. Adding a cause is adding a
row to a file and to its `ROWS`.
"""

from tfbig.parity.causes import epoch, forward, logs, loss, scale, update
from tfbig.parity.causes.row import Cause, Row

__all__ = ["CATALOGUE", "Cause", "Row"]

CATALOGUE: dict[str, Row] = {
    row.id: row
    for row in sorted(
        (*forward.ROWS, *loss.ROWS, *scale.ROWS, *update.ROWS, *logs.ROWS, *epoch.ROWS),
        key=lambda row: row.id,
    )
}
