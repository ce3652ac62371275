"""How a network is trained: the step and the loop by hand, objectives, gradient rules, surgery."""

from tfbig.training import objective, rules, step, textbook, where
from tfbig.training.learner import Learner, RuledLearner
from tfbig.training.loop import Loop
from tfbig.training.objective import LabelSmoothing, NoisePrediction, Objective, Supervised
from tfbig.training.rules import Accumulation
from tfbig.training.step import gradient, test_step, train_step
from tfbig.training.taps import tap

__all__ = [
    "Accumulation",
    "LabelSmoothing",
    "Learner",
    "Loop",
    "NoisePrediction",
    "Objective",
    "RuledLearner",
    "Supervised",
    "gradient",
    "objective",
    "rules",
    "step",
    "tap",
    "test_step",
    "textbook",
    "train_step",
    "where",
]
