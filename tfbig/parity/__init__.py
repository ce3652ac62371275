"""Proof that two drivers compute the same gradients, and the cause where they do not."""

from tfbig.parity.causes import CATALOGUE, Cause
from tfbig.parity.check import ParityCheck, ParityError, assert_same
from tfbig.parity.compare import compare
from tfbig.parity.diagnose import diagnose
from tfbig.parity.diagnosis import Diagnosis
from tfbig.parity.probe import Probe, probing
from tfbig.parity.report import Report, Row
from tfbig.parity.run import LoopError
from tfbig.parity.torch_loop import compare_torch

__all__ = [
    "CATALOGUE",
    "Cause",
    "Diagnosis",
    "LoopError",
    "ParityCheck",
    "ParityError",
    "Probe",
    "Report",
    "Row",
    "assert_same",
    "compare",
    "compare_torch",
    "diagnose",
    "probing",
]
