"""Which of the known defects a model will meet in this installation, and what to do about each."""

import dataclasses

import keras

from tfbig import compat


@dataclasses.dataclass(frozen=True)
class Finding:
    """A defect, as one reads it in a report.

    Attributes:
        id: the key in `compat.DEFECTS`.
        summary: what goes wrong.
        when: "" where the model meets it as it is; else "if you ...", on what it hinges.
        mend: what to do.
        fixed: whether `compat.fixed()` mends it.
    """

    id: str
    summary: str
    when: str
    mend: str
    fixed: bool


def finding(name: str) -> Finding:
    """A defect of `compat.DEFECTS`, whether it is met or not.

    >>> finding("V21").when
    'if you resume by BackupAndRestore with save_freq in steps'
    """
    defect = compat.DEFECTS[name]
    return Finding(name, defect.SUMMARY, defect.WHEN, defect.MEND, name in compat.FIXES)


def audit(model: keras.Model) -> tuple[Finding, ...]:
    """The defects that a model meets, those it meets for certain first.

    Layers, optimizer, losses and strategy are read, as they are on this machine; nothing is
    trained. What a `call` does by itself cannot be seen: `keras.remat`, a loss of one's own.

    Args:
        model: compiled, under its strategy.

    Raises:
        ValueError: if it is not compiled.

    >>> import keras
    >>> words = keras.Sequential([keras.layers.Embedding(9, 2)])
    >>> words.compile("adam", "mse")
    >>> [f.id for f in audit(words) if not f.when]
    ['V2']
    """
    if not model.compiled:
        raise ValueError("An audit reads the optimizer and the losses: compile the model first.")
    # The model first: a probe may take seconds.
    met = [name for name in compat.DEFECTS if compat.DEFECTS[name].meets(model)]
    findings = [finding(name) for name in met if compat.present(name)]
    return tuple(sorted(findings, key=lambda f: bool(f.when)))
