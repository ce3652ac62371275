"""V14: a second `compile()` without a loss or metrics keeps those of the first.

`compile("sgd")` after `compile("sgd", "mse", metrics=["mae"])` still minimises mse and reports mae.
A model that was never compiled with a loss says "No loss to compute".

The fix forgets the first loss and the first metrics.
"""

import contextlib
import functools
from collections.abc import Iterator

import keras
from keras.src.trainers.trainer import Trainer
from keras.src.utils import tracking

from tfbig.compat import trial

SUMMARY = "compile() without a loss or metrics keeps those of the compile() before"
WHEN = "if you compile a model a second time"
MEND = "tfbig.compat.fixed(), or give every compile() its loss and metrics=[]"


def meets(model: keras.Model) -> bool:
    """Always: it hinges on how often the model is compiled."""
    return True


@trial.traceless()
def present() -> bool:
    """Whether the loss of the first compile is still there after the second."""
    model = keras.Sequential([keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    model.compile("sgd")
    return model._compile_loss is not None


@contextlib.contextmanager
def patched() -> Iterator[None]:
    """Has every `compile` begin from nothing."""
    original = Trainer.compile

    @functools.wraps(original)
    @tracking.no_automatic_dependency_tracking
    def compile(self, *args, **kwargs):
        self.loss = self._compile_loss = self._compile_metrics = None
        return original(self, *args, **kwargs)

    Trainer.compile = compile
    try:
        yield
    finally:
        Trainer.compile = original
