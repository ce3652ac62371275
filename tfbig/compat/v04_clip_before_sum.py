"""V4: with more than one replica, gradients are clipped before they are summed.

Each replica clips its own share, and the clipped shares are added. Gradients (3, 0) and (0, 4) have
the sum (3, 4) of norm 5, which clipped to norm 1 moves SGD(1.0) by (0.6, 0.8); under two replicas
it moves by (1, 1), of norm 1.41. So the same clipnorm is another one on each number of replicas.
"""

import keras
import tensorflow as tf

from tfbig.compat import ask, replicas

SUMMARY = "with several replicas gradients are clipped before they are summed"
WHEN = ""
MEND = (
    "clip in a train_step of your own: all_reduce the gradients, clip, divide by the replicas, "
    "apply (which sums again), with an optimizer that does not clip"
)


def meets(model: keras.Model) -> bool:
    """Whether clipping and several replicas come together."""
    return ask.clips(model) and ask.replicas(model) > 1


def present() -> bool:
    """Whether two replicas move further than the clip allows."""
    return replicas.measured("V4") == [-1.0, -1.0]


def measured(strategy: tf.distribute.Strategy) -> list[float | str]:
    """The weights after a step of SGD(1.0, global_clipnorm=1.0) along (3, 0) and (0, 4)."""
    return replicas.update(
        strategy,
        lambda: keras.optimizers.SGD(1.0, global_clipnorm=1.0),
        [[3.0, 0.0], [0.0, 4.0]],
    )
