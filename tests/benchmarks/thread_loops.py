"""Loops from threads where a hand-written loop and `model.fit` differ, and their mended forms.

Written from the threads alone, before the tool that names the cause was tuned, and then frozen:
`check_thread_loops.py` shows, without that tool, that the faulty ones differ from `fit` and that
the correct ones do not.
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent))

from thread_loops_common import ThreadCase
from thread_loops_correct import CORRECT
from thread_loops_faulty import FAULTY_LOSS
from thread_loops_faulty_update import FAULTY_UPDATE

FAULTY: tuple[ThreadCase, ...] = (*FAULTY_LOSS, *FAULTY_UPDATE)

__all__ = ["CORRECT", "FAULTY", "ThreadCase"]
