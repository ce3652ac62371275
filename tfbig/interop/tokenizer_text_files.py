"""The small files beside a model's weights: read with a limit, written whole or not at all."""

import json
import os
from pathlib import Path
from typing import Any

from tfbig.interop.tokenizer import TokenizerError

# Gemma 3's tokenizer.json, the largest in wide use, has 33 MB.
LARGEST_FILE = 256 * 2**20


def read_bytes(path: Path) -> bytes:
    """The bytes of a file.

    Raises:
        TokenizerError: if it is larger than `LARGEST_FILE`, or cannot be read.
    """
    try:
        size = path.stat().st_size
        if size > LARGEST_FILE:
            raise TokenizerError(
                f"{path}: it has {size} bytes, and a tokenizer's file has at most {LARGEST_FILE}."
            )
        return path.read_bytes()
    except OSError as error:
        raise TokenizerError(f"{path}: it cannot be read: {error}") from error


def read_text(path: Path) -> str:
    """The text of a file in UTF-8.

    Raises:
        TokenizerError: as `read_bytes`, or if it is no UTF-8.
    """
    try:
        return read_bytes(path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise TokenizerError(f"{path}: it is no UTF-8: {error}") from error


def read_optional_json(path: Path) -> dict[str, Any]:
    """The object of a JSON file; an empty one where there is no file.

    Raises:
        TokenizerError: as `read_text`, or if it holds no JSON object.

    >>> read_optional_json(Path("there", "is", "none.json"))
    {}
    """
    if not path.is_file():
        return {}
    try:
        value = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        if isinstance(error, TokenizerError):
            raise
        raise TokenizerError(f"{path}: it is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise TokenizerError(f"{path}: it holds a {type(value).__name__}, and not a JSON object.")
    return value


def write_text(path: Path, text: str) -> None:
    """Writes a file under another name, and renames it: it is there whole, or as it was."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    try:
        unfinished.write_text(text, encoding="utf-8")
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
