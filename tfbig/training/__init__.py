"""How a network is trained: the step and the loop by hand, objectives, gradient rules, surgery."""

from tfbig.training.loop import Loop

__all__ = ["Loop"]
