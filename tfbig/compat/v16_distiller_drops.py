"""V16: Keras's `Distiller` drops sample weights and the student's regularization.

With all weights 0 and predictions 1 and 3 of zeros, the mean square is 5, and 5 it stays; an L2 of
1 in the student's layer is not in the loss.
"""

import keras
import numpy as np

from tfbig.compat import trial

SUMMARY = "a Distiller ignores sample_weight and the student's regularization"
WHEN = "if you pass sample_weight or class_weight, or the student has regularizers"
MEND = "for regularizers, subclass Distiller: compute_loss() + sum(self.student.losses)"


def meets(model: keras.Model) -> bool:
    """Whether the model is Keras's distiller."""
    return isinstance(model, keras.distillation.Distiller)


def present() -> bool:
    """Whether the loss is that without weights and regularization."""
    return measured() == 5.0


@trial.traceless()
def measured() -> float:
    """The student's loss at predictions 1 and 3 of zeros, weights 0 and L2 = 1: by hand 1."""

    def network():
        inputs = keras.Input((1,))
        dense = keras.layers.Dense(
            1, kernel_initializer="ones", kernel_regularizer=keras.regularizers.L2(1.0)
        )
        return keras.Model(inputs, dense(inputs))

    logits = keras.distillation.LogitsDistillation(loss="mse")
    distiller = keras.distillation.Distiller(network(), network(), logits, student_loss_weight=1.0)
    distiller.compile("sgd", "mse")
    x, y = np.array([[1.0], [3.0]], "float32"), np.zeros((2, 1), "float32")
    return float(distiller.compute_loss(x, y, distiller(x), sample_weight=np.zeros(2)))
