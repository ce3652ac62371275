"""Where Keras 3 on TensorFlow is wrong: each known defect, whether it is here, and its fix.

A defect is a file. It says what is wrong with the measured number; `present()` tries whether this
installation has it, `meets(model)` tells whether a compiled model will run into it, `WHEN` on what
else that hinges, and `MEND` what to do. Some have a fix, `patched()`, which mends Keras for as long
as it is entered; a fix whose defect is not present does nothing. The identifiers are tfbig's own
(`V1` to `V27`). `tfbig.compat.audit` reads a model.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

from tfbig.compat import (
    update,
    v01_multi_worker,
    v02_repeated_rows,
    v03_finite_on_one_replica,
    v04_clip_before_sum,
    v04b_clip_repeated_rows,
    v05_remat_dropout,
    v06_remat_batch_norm,
    v07_remat_compiled,
    v08_accumulate_mirrored,
    v09_overwrite_mirrored,
    v10_uneven_batch,
    v11_average_micro_steps,
    v12_mean_per_replica,
    v13_loss_list,
    v14_kept_loss,
    v15_distiller_trains_in_evaluate,
    v16_distiller_drops,
    v17_distiller_features,
    v18_fake_quant_arguments,
    v19_int8_litert,
    v20_muon_attention,
    v21_resume_mid_epoch,
    v22_distribution_ignored,
    v23_no_flash_attention,
    v24_lost_logits,
    v25_stateless_apply,
    v26_phantom_step,
    v27_same_order,
)

__all__ = ["DEFECTS", "FIXES", "active", "fix", "fixed", "present", "summary", "update"]

DEFECTS = {
    "V1": v01_multi_worker,
    "V2": v02_repeated_rows,
    "V3": v03_finite_on_one_replica,
    "V4": v04_clip_before_sum,
    "V4b": v04b_clip_repeated_rows,
    "V5": v05_remat_dropout,
    "V6": v06_remat_batch_norm,
    "V7": v07_remat_compiled,
    "V8": v08_accumulate_mirrored,
    "V9": v09_overwrite_mirrored,
    "V10": v10_uneven_batch,
    "V11": v11_average_micro_steps,
    "V12": v12_mean_per_replica,
    "V13": v13_loss_list,
    "V14": v14_kept_loss,
    "V15": v15_distiller_trains_in_evaluate,
    "V16": v16_distiller_drops,
    "V17": v17_distiller_features,
    "V18": v18_fake_quant_arguments,
    "V19": v19_int8_litert,
    "V20": v20_muon_attention,
    "V21": v21_resume_mid_epoch,
    "V22": v22_distribution_ignored,
    "V23": v23_no_flash_attention,
    "V24": v24_lost_logits,
    "V25": v25_stateless_apply,
    "V26": v26_phantom_step,
    "V27": v27_same_order,
}

# Merging the rows mends V4b as well: it happens before the optimizer clips.
FIXES: dict[str, Callable[[], AbstractContextManager[None]]] = {
    "V2": v02_repeated_rows.patched,
    "V4b": v02_repeated_rows.patched,
    "V13": v13_loss_list.patched,
    "V14": v14_kept_loss.patched,
    "V24": v24_lost_logits.patched,
    "V26": v26_phantom_step.patched,
    "V27": v27_same_order.patched,
}

_active: set[Callable[[], AbstractContextManager[None]]] = set()


@functools.cache
def present(name: str) -> bool:
    """Whether this installation of Keras has the defect. Tried once, then remembered.

    Most probes take less than a second; those with several replicas or workers share a process
    of their own, for about ten.

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
    return FIXES.get(name) in _active


@contextlib.contextmanager
def fixed(*names: str) -> Iterator[None]:
    """Mends `model.fit`, `model.evaluate` and `model.compile` inside a `with` block.

    A model that was trained outside keeps its compiled step: `compile()` it again, or enter first.

    Args:
        *names: of defects (`"V2"`, ...); none means all that have a fix and are present.

    Raises:
        ValueError: for a name that is not a key of `DEFECTS`, or has no fix.

    >>> with fixed("V27"):
    ...     active("V27")
    True
    >>> active("V27")
    False
    """
    _check(names)
    for name in names:
        if name not in FIXES:
            raise ValueError(f"{name} has no fix here. Instead: {DEFECTS[name].MEND}")
    # Decide first, and on all: the probe of one defect must not see the fix of another.
    here = [name for name in FIXES if present(name)]
    wanted = dict.fromkeys(FIXES[name] for name in here if name in (names or FIXES))
    with contextlib.ExitStack() as stack:
        for patched in wanted:
            if patched not in _active:
                stack.enter_context(patched())
                _active.add(patched)
                stack.callback(_active.discard, patched)
        yield


_forever = contextlib.ExitStack()


def fix(*names: str) -> None:
    """Mends Keras for the rest of the program: see `fixed`."""
    _forever.enter_context(fixed(*names))


def _check(names) -> None:
    unknown = [n for n in names if n not in DEFECTS]
    if unknown:
        raise ValueError(f"Unknown defect {unknown[0]!r}: choose from {', '.join(DEFECTS)}.")
