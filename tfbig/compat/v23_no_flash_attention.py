"""V23: TensorFlow has no attention that saves memory.

`flash_attention=True` is a ValueError, and without it the scores of all pairs of positions are in
memory, forward and for the gradient: twice the length takes four times the memory.
"""

import keras
import tensorflow as tf

from tfbig.compat import ask, trial

SUMMARY = "attention keeps the scores of all pairs: no flash attention on TensorFlow"
WHEN = "if you ask for flash attention, or sequences are long"
MEND = "shorter sequences or smaller batches; KERAS_BACKEND=jax has flash attention on GPUs"


def meets(model: keras.Model) -> bool:
    """Whether the model has one of Keras's attentions."""
    return ask.has(model, keras.layers.MultiHeadAttention, keras.layers.GroupQueryAttention)


def present() -> bool:
    """Whether flash attention is refused."""
    return measured() == "ValueError"


@trial.traceless()
def measured() -> str:
    """The error of flash attention over one position."""
    one = tf.ones((1, 1, 1, 8))
    return trial.error(lambda: keras.ops.dot_product_attention(one, one, one, flash_attention=True))
