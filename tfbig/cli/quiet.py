"""Starts TensorFlow without the lines that its libraries write while they are loaded.

They say nothing to the user of a command (no GPU was found, oneDNN may round otherwise), and
`TF_CPP_MIN_LOG_LEVEL` does not silence them: they come before it is read. Where the import fails,
they are shown.
"""

import contextlib
import importlib
import os
import sys
import tempfile
from collections.abc import Iterator


def start_keras() -> None:
    """Imports Keras, and TensorFlow with it, unless that was done."""
    if "keras" not in sys.modules:
        with without_stderr():
            importlib.import_module("keras")


@contextlib.contextmanager
def without_stderr() -> Iterator[None]:
    """Within it, what is written to the error stream, by C++ too, is kept back; shown if it fails.

    >>> with without_stderr():
    ...     written = os.write(2, b"nobody reads this")
    >>> written
    17
    """
    sys.stderr.flush()
    with tempfile.TemporaryFile() as kept:
        stream = os.dup(2)
        os.dup2(kept.fileno(), 2)
        failed = True
        try:
            yield
            failed = False
        finally:
            sys.stderr.flush()
            os.dup2(stream, 2)
            os.close(stream)
            if failed:
                kept.seek(0)
                os.write(2, kept.read())
