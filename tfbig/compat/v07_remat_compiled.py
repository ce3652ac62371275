"""V7: `keras.RematScope` fails in a compiled `fit`.

TensorFlow's recomputation takes no keyword arguments in a graph, and Keras passes `training=` by
keyword: ValueError for every layer whose `call` takes `training`, and Dense is one of them; ReLU or
LayerNormalization train. Eager all run (and V5, V6 appear).
"""

import keras
import tensorflow as tf

from tfbig.compat import ask, trial

SUMMARY = "RematScope fails in a compiled fit"
WHEN = ""
MEND = "in call, write y = keras.remat(layer)(x), without keyword arguments, and no RematScope"


def meets(model: keras.Model) -> bool:
    """Whether a rematerialized layer takes `training` in a graph.

    Too strict for one case: a Dense in a model whose own `call` does not know `training` is called
    without it, and trains.
    """
    remat = ask.rematerialized(model)
    return not model.run_eagerly and any(layer._call_has_training_arg for layer in remat)


def present() -> bool:
    """Whether a rematerialized Dropout fails in a graph."""
    return measured() == "ValueError"


@trial.traceless()
def measured() -> str:
    """The error of a rematerialized layer that is called with `training=True` in a graph."""
    with keras.RematScope("full"):
        dropout = keras.layers.Dropout(0.5, seed=1)
    run = tf.function(lambda: dropout(tf.ones((1, 1)), training=True))
    return trial.error(run)
