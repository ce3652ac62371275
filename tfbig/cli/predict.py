"""tfbig predict --model=runs/diagnosis/model.keras --input=x.csv --output=y.csv"""

import csv
import os
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from tfbig.cli import common
from tfbig.cli.main import UsageError

FLAGS = flags.FlagValues()
common.define_model(FLAGS)
flags.DEFINE_string("input", None, "rows of features, .csv or .npy", flag_values=FLAGS)
flags.DEFINE_string(
    "output", None, "where the predictions go, .csv or .npy; printed by default", flag_values=FLAGS
)


def run(values: flags.FlagValues) -> int:
    """Predicts for the rows of a file."""
    if not values.input:
        raise UsageError("--input=FILE.csv or FILE.npy is missing")
    output = Path(values.output) if values.output else None
    if output and output.suffix not in (".csv", ".npy"):
        raise UsageError(f"--output ends in .csv or .npy, and is {output}")
    x = read(Path(values.input))
    model = common.model(values.model)
    width = model.input_shape[-1] if len(model.inputs or []) == 1 else None
    if width is not None and x.shape[-1] != width:
        raise UsageError(f"the model takes {width} features, and {values.input} has {x.shape[-1]}")
    predictions = model.predict(x, verbose=0)
    if output is None:
        for row in predictions.reshape(len(predictions), -1):
            print(",".join(f"{value:.6g}" for value in row))
    else:
        write(predictions, output)
        print(f"{len(predictions)} predictions written to {output}")
    return 0


def read(path: Path) -> np.ndarray:
    """The rows of a .csv file (with or without a line of headings) or of a .npy file, float32.

    Raises:
        UsageError: for a file that is not there, not numbers, ragged, or has gaps.
    """
    if not path.is_file():
        raise UsageError(f"there is no file {path}")
    if path.suffix == ".npy":
        try:
            x = np.load(path, allow_pickle=False)
        except (ValueError, EOFError, OSError) as error:
            raise UsageError(f"{path} is no array of numbers: {error}") from error
        if x.dtype.kind not in "fiub" or x.ndim < 2:
            raise UsageError(f"{path}: rows of numbers are expected, not {x.dtype} of {x.shape}")
        x = x.astype("float32")
    elif path.suffix == ".csv":
        x = _read_csv(path)
    else:
        raise UsageError(f"--input ends in .csv or .npy, and is {path}")
    if not len(x):
        raise UsageError(f"{path} has no rows")
    gaps = np.flatnonzero(~np.isfinite(x.reshape(len(x), -1)).all(axis=1))
    if len(gaps):
        shown = ", ".join(str(gap + 1) for gap in gaps[:10]) + ", ..." * (len(gaps) > 10)
        raise UsageError(
            f"{path}: {len(gaps)} rows have missing or infinite values: {shown}; "
            f"fill or remove them"
        )
    return x


def _read_csv(path: Path) -> np.ndarray:
    with path.open(newline="", encoding="utf-8-sig") as file:
        try:
            lines = [line for line in csv.reader(file) if line]
        except (csv.Error, UnicodeDecodeError) as error:
            raise UsageError(f"{path} is no table of text: {error}") from error
    if lines and not any(_is_number(cell) for cell in lines[0]):
        lines = lines[1:]  # headings
    rows = []
    for number, line in enumerate(lines, start=1):
        if len(line) != len(lines[0]):
            raise UsageError(
                f"{path}, row {number}: {len(line)} values, and the first row has {len(lines[0])}"
            )
        try:
            rows.append([float(cell) if cell.strip() else np.nan for cell in line])
        except ValueError as error:
            raise UsageError(f"{path}, row {number}: {error}") from error
    with np.errstate(over="ignore"):  # to infinity, which is reported
        return np.array(rows, "float32")


def _is_number(cell: str) -> bool:
    try:
        float(cell or "nan")
    except ValueError:
        return False
    return True


def write(predictions: Any, path: Path) -> None:
    """Writes predictions to a temporary name, and renames."""
    temporary = path.with_name(f".{os.getpid()}_{path.name}")
    try:
        if path.suffix == ".npy":
            with temporary.open("wb") as file:
                np.save(file, predictions)
        else:
            np.savetxt(temporary, predictions.reshape(len(predictions), -1), "%.8g", ",")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
