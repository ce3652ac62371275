"""V17: `FeatureDistillation` takes neither subclassed models nor layers of different widths.

The layer of a subclassed model is refused, for Keras cuts a functional model at it: ValueError.
Widths of 2 and 3 fail in the loss, without a word about a projection. Widths of 2 and 1 do not
fail: they are broadcast, and the student's one feature is pulled towards each of the teacher's two.
"""

import keras
import numpy as np

from tfbig.compat import trial

SUMMARY = "FeatureDistillation refuses subclassed models, and broadcasts or fails on widths"
WHEN = "if you distill a layer of a subclassed model, or one of another width"
MEND = "functional models, with layers of equal width"


def meets(model: keras.Model) -> bool:
    """Whether the model is Keras's distiller: one that it refuses is never made."""
    return isinstance(model, keras.distillation.Distiller)


def present() -> bool:
    """Whether a subclassed student is refused."""
    return measured("subclassed") == "ValueError"


class _Subclassed(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.hidden = keras.layers.Dense(1, name="hidden")

    def call(self, x):
        return self.hidden(x)


@trial.traceless()
def measured(student: str) -> str | float:
    """The error, or the loss, of a student "subclassed", "narrow" (1) or "wide" (3).

    The teacher's two features at x = 1 are 1 and 1, a student's are 3: the mean square is 4.
    """

    def network(width, value):
        inputs = keras.Input((1,))
        ones = keras.initializers.Constant(value)
        hidden = keras.layers.Dense(width, kernel_initializer=ones, name="hidden")(inputs)
        return keras.Model(inputs, keras.layers.Dense(1, kernel_initializer="ones")(hidden))

    losses: list[float] = []

    def run():
        chosen = _Subclassed() if student == "subclassed" else network(widths[student], 3.0)
        features = keras.distillation.FeatureDistillation("mse", "hidden", "hidden")
        distiller = keras.distillation.Distiller(
            network(2, 1.0), chosen, features, student_loss_weight=0.0
        )
        distiller.compile("sgd", "mse")
        x = np.ones((1, 1), "float32")
        losses.append(float(distiller.compute_loss(x, x, distiller(x))))

    widths = {"narrow": 1, "wide": 3}
    return trial.error(run) or losses[0]
