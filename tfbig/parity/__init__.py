"""Proof that two drivers compute the same gradients, and the numbers where they do not."""

from tfbig.parity.compare import ParityError, assert_same, compare
from tfbig.parity.probe import Probe, probing
from tfbig.parity.report import Report, Row

__all__ = ["ParityError", "Probe", "Report", "Row", "assert_same", "compare", "probing"]
