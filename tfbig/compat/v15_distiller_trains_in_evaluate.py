"""V15: `evaluate` of a Distiller with features changes its student's BatchNormalization.

For the features of a layer Keras's `Distiller` runs the student a second time, always with
`training=True`. So `evaluate` moves the student's statistics (from 0 with momentum 0.5 and a batch
of mean 2, to 1), and a training step moves them twice (to 1.5, not 1), and draws a second dropout
mask for the features than for the prediction.
"""

import keras
import numpy as np

from tfbig.compat import ask, trial

SUMMARY = "a Distiller with features runs its student twice, in training mode even in evaluate"
WHEN = ""
MEND = "distill outputs only (LogitsDistillation), and evaluate distiller.student"


def meets(model: keras.Model) -> bool:
    """Whether features are distilled into a student with statistics or random numbers."""
    return ask.distills_features(model) and (
        ask.draws(model.student) or ask.normalizes(model.student)
    )


def present() -> bool:
    """Whether an evaluation moves the student's mean."""
    return measured("evaluate") != 0.0


@trial.traceless()
def measured(verb: str) -> float:
    """The student's moving mean after `evaluate` (by hand 0) or `fit` (1) of one batch."""

    def network():
        inputs = keras.Input((1,))
        hidden = keras.layers.BatchNormalization(momentum=0.5, name="hidden")(inputs)
        return keras.Model(inputs, keras.layers.Dense(1, kernel_initializer="ones")(hidden))

    student = network()
    features = keras.distillation.FeatureDistillation("mse", "hidden", "hidden")
    distiller = keras.distillation.Distiller(network(), student, features)
    distiller.compile("sgd", "mse")
    getattr(distiller, verb)(np.array([[1.0], [3.0]]), np.zeros((2, 1)), verbose=0)
    return float(student.get_layer("hidden").moving_mean[0])
