"""V8: `gradient_accumulation_steps` fails under MirroredStrategy.

The update stands in a `cond`, and a mirrored variable cannot be updated from inside one:
RuntimeError about `merge_call`. It fails with one replica as well; a strategy that mirrors nothing
(`OneDeviceStrategy`) trains.
"""

import keras
import tensorflow as tf

from tfbig.compat import ask, replicas, trial

SUMMARY = "gradient_accumulation_steps fails under MirroredStrategy"
WHEN = ""
MEND = "leave gradient_accumulation_steps out and take a smaller batch on more replicas"


def meets(model: keras.Model) -> bool:
    """Whether accumulation and mirrored variables come together."""
    accumulates = any(o.gradient_accumulation_steps for o in ask.optimizers(model))
    return accumulates and ask.mirrored(model)


def present() -> bool:
    """Whether an update in a graph fails."""
    return replicas.measured("V8") == "RuntimeError"


def measured(strategy: tf.distribute.Strategy) -> str:
    """The error of an update that accumulates."""

    def optimizer():
        return keras.optimizers.SGD(1.0, gradient_accumulation_steps=2)

    return trial.error(lambda: replicas.update(strategy, optimizer, [[1.0], [1.0]]))
