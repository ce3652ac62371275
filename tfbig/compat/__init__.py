"""Where Keras 3 on TensorFlow is wrong: each known defect, whether it is here, and its fix.

A defect is a file: it says what is wrong with the measured number, `present()` tells whether this
installation has it, and `patched()` mends it for as long as it is entered. A fix whose defect is
not present does nothing. The identifiers are tfbig's own (`V2`, `V26`, `V27`).
"""

import contextlib
import functools
from collections.abc import Iterator

from tfbig.compat import update, v02_repeated_rows, v26_phantom_step, v27_same_order

__all__ = ["DEFECTS", "active", "fix", "fixed", "present", "summary", "update"]

DEFECTS = {"V2": v02_repeated_rows, "V26": v26_phantom_step, "V27": v27_same_order}

_active: set[str] = set()


@functools.cache
def present(name: str) -> bool:
    """Whether this installation of Keras has the defect. Tried once, then remembered.

    Args:
        name: of the defect, a key of `DEFECTS`.
    """
    _check([name])
    return DEFECTS[name].present()


def summary(name: str) -> str:
    """The defect in one line.

    >>> summary("V26")
    'fit and evaluate take one more step, without data, over a dataset of unknown length'
    """
    _check([name])
    return DEFECTS[name].SUMMARY


def active(name: str) -> bool:
    """Whether the fix of the defect is on at this moment."""
    _check([name])
    return name in _active


@contextlib.contextmanager
def fixed(*names: str) -> Iterator[None]:
    """Mends `model.fit` and `model.evaluate` inside a `with` block.

    A model that was trained outside keeps its compiled step: `compile()` it again, or enter first.

    Args:
        *names: of defects (`"V2"`, ...); none means all that this installation has.

    Raises:
        ValueError: for a name that is not a key of `DEFECTS`.

    >>> with fixed("V27"):
    ...     active("V27")
    True
    >>> active("V27")
    False
    """
    _check(names)
    # Decide first: the probe of one defect must not see the fix of another.
    wanted = [n for n in names or DEFECTS if n not in _active and present(n)]
    with contextlib.ExitStack() as stack:
        for name in wanted:
            stack.enter_context(DEFECTS[name].patched())
            _active.add(name)
            stack.callback(_active.discard, name)
        yield


_forever = contextlib.ExitStack()


def fix(*names: str) -> None:
    """Mends `model.fit` and `model.evaluate` for the rest of the program: see `fixed`."""
    _forever.enter_context(fixed(*names))


def _check(names) -> None:
    unknown = [n for n in names if n not in DEFECTS]
    if unknown:
        raise ValueError(f"Unknown defect {unknown[0]!r}: choose from {', '.join(DEFECTS)}.")
