"""V9: `ema_overwrite_frequency` fails under MirroredStrategy.

As in V8 a mirrored variable would be updated from inside a `cond`: RuntimeError about `merge_call`,
with one replica too. The moving average by itself (`use_ema=True`) trains.
"""

import keras
import tensorflow as tf

from tfbig.compat import ask, replicas, trial

SUMMARY = "ema_overwrite_frequency fails under MirroredStrategy"
WHEN = ""
MEND = "leave ema_overwrite_frequency out: fit puts the average in place at its end"


def meets(model: keras.Model) -> bool:
    """Whether overwriting and mirrored variables come together."""
    overwrites = any(o.use_ema and o.ema_overwrite_frequency for o in ask.optimizers(model))
    return overwrites and ask.mirrored(model)


def present() -> bool:
    """Whether an update in a graph fails."""
    return replicas.measured("V9") == "RuntimeError"


def measured(strategy: tf.distribute.Strategy) -> str:
    """The error of an update that overwrites the weights by their average every second step."""

    def optimizer():
        return keras.optimizers.SGD(1.0, use_ema=True, ema_overwrite_frequency=2)

    return trial.error(lambda: replicas.update(strategy, optimizer, [[1.0], [1.0]]))
