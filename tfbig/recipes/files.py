"""What a recipe writes: each file whole or not at all."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras


def write(path: Path, by: Callable[[Path], Any]) -> str:
    """Writes to a temporary name and renames: a full disk or an interrupt leaves the old file.

    Args:
        path: of the file.
        by: writes to the path that it is given.

    Returns:
        The file's name.
    """
    temporary = path.with_name(f".{os.getpid()}_{path.name}")
    try:
        by(temporary)
        os.replace(temporary, path)
        return path.name
    finally:
        temporary.unlink(missing_ok=True)


def write_model(model: keras.Model, path: Path) -> str:
    """Writes a model as `.keras`."""
    return write(path, model.save)


def write_json(values: Any, path: Path) -> str:
    """Writes values as JSON."""
    return write(path, lambda to: to.write_text(json.dumps(values, indent=2) + "\n"))


def write_figure(figure: Any, path: Path) -> str:
    """Writes a matplotlib figure as a picture."""
    return write(path, lambda temporary: figure.savefig(temporary, dpi=120))


def write_folder(by: Callable[[Path], Any], path: Path) -> str:
    """Writes a folder beside and puts it in the place of the one that is there.

    Args:
        by: writes the folder of the path that it is given, which is not there.
        path: of the folder.

    Returns:
        The folder's name.
    """
    fresh = path.with_name(f".{os.getpid()}_{path.name}")
    old = path.with_name(f".{os.getpid()}_old_{path.name}")
    try:
        by(fresh)
        if path.exists():  # a folder that is not empty cannot be renamed over
            os.replace(path, old)
        os.replace(fresh, path)
        return path.name
    finally:
        for leftover in (fresh, old):
            shutil.rmtree(leftover, ignore_errors=True)
