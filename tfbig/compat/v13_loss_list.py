"""V13: `compile(loss=[a, b])` for a model of one output minimises `a` alone.

Both losses are computed, and the first is returned. At y = 3 and a prediction of 0, mse and mae are
9 and 3: the loss is 9, and `mae` is shown as 0.0 at its side. Losses of one output are not added;
a list is one loss for each output.

The fix is an error at the first loss: what was meant, the sum or a mistake, is not ours to say.
"""

import contextlib
import functools
from collections.abc import Iterator

import keras
import numpy as np
from keras.src.trainers.compile_utils import CompileLoss

from tfbig.compat import ask, trial

SUMMARY = "a list of losses for one output minimises the first of them"
WHEN = ""
SUM = "loss=lambda y, p: a(y, p) + b(y, p), with a = keras.losses.MeanSquaredError() and such"
MEND = f"{SUM}; tfbig.compat.fixed() makes the list an error"


def meets(model: keras.Model) -> bool:
    """Whether a model that is known to have one output has a list of losses."""
    losses = model.loss if isinstance(model.loss, (list, tuple)) else ()
    return len(losses) > 1 and ask.outputs(model) == 1


def present() -> bool:
    """Whether the loss of both is that of the first."""
    return measured() == 9.0


@trial.traceless()
def measured() -> float:
    """The loss of mse and mae at y = 3 and a prediction of 0, whose sum is 12."""
    model = keras.Sequential([keras.layers.Dense(1)])
    model.compile("sgd", ["mse", "mae"])
    return float(model.compute_loss(y=np.full((1, 1), 3.0), y_pred=np.zeros((1, 1))))


@contextlib.contextmanager
def patched() -> Iterator[None]:
    """Raises ValueError where Keras would drop a loss."""
    original = CompileLoss.call

    @functools.wraps(original)
    def call(self, y_true, y_pred, sample_weight=None):
        value = original(self, y_true, y_pred, sample_weight)
        one = not keras.tree.is_nested(y_true) and not keras.tree.is_nested(y_pred)
        if one and len(self._flat_losses) > 1:
            names = [loss.name for loss in self._flat_losses]
            raise ValueError(
                f"compile(loss=[...]) got {len(names)} losses for one output ({', '.join(names)}), "
                f"of which Keras minimises the first. If you mean their sum: {SUM}."
            )
        return value

    CompileLoss.call = call
    try:
        yield
    finally:
        CompileLoss.call = original
