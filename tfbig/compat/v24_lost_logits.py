"""V24: a crossentropy of probabilities saturates once they went through a cast.

Keras's softmax hangs its logits on its output, and a crossentropy of probabilities computes with
those. A cast or an identity in between loses them; then probabilities are clipped at 1e-7, the loss
of a sure mistake is 16.118 = -ln 1e-7 for any logits, and its gradient is exactly 0. At logits
(-20, 20) with the first class true the loss should be 40 and the gradient (-1, 1).

It needs no loop of one's own: under mixed_float16 and mixed_bfloat16 a last layer with softmax (or
sigmoid) is cast to float32 for the loss, so stock `fit` has it.

The fix goes back through casts and identities to the softmax, in a graph: `fit`, and loops under
`tf.function` that compute the loss in the same function. Of an eager tensor nobody knows where it
came from: there, and from one `tf.function` to another, the only mend is to train on logits.
"""

import contextlib
import functools
from collections.abc import Iterator

import keras
import tensorflow as tf
from keras.src.backend.tensorflow import nn

from tfbig.compat import trial

SUMMARY = "a crossentropy of probabilities saturates, gradient 0, once they went through a cast"
WHEN = "if the softmax's output is cast before the loss, as mixed precision does"
MEND = "end the model in logits, Dense(n), with from_logits=True; or tfbig.compat.fixed()"


def meets(model: keras.Model) -> bool:
    """Whether one of the losses is a crossentropy of probabilities."""
    return any(map(_of_probabilities, keras.tree.flatten(model.loss)))


def present() -> bool:
    """Whether the loss at logits 40 apart is that of the clip."""
    return measured()[0] < 20.0


@trial.traceless()
def measured() -> tuple[float, list[float]]:
    """The loss and its gradient in a graph, at logits (-20, 20) of which the first is true."""

    @tf.function
    def step(logits):
        with tf.GradientTape() as tape:
            tape.watch(logits)
            probabilities = tf.identity(keras.ops.softmax(logits))
            loss = keras.losses.CategoricalCrossentropy()(tf.constant([[1.0, 0.0]]), probabilities)
        return loss, tape.gradient(loss, logits)

    loss, gradient = step(tf.constant([[-20.0, 20.0]]))
    return float(loss), gradient.numpy()[0].tolist()


@contextlib.contextmanager
def patched() -> Iterator[None]:
    """Has Keras look for the logits behind casts and identities too."""
    original = nn._get_logits

    @functools.wraps(original)
    def _get_logits(output, from_logits, op_type, fn_name):
        if from_logits:
            return original(output, from_logits, op_type, fn_name)
        logits, found = original(_behind(output), from_logits, op_type, fn_name)
        return (tf.cast(logits, output.dtype), True) if found else (output, False)

    nn._get_logits = _get_logits
    try:
        yield
    finally:
        nn._get_logits = original


def _behind(output: tf.Tensor) -> tf.Tensor:
    """The tensor that was cast or passed on to become this one, as far as its graph tells."""
    # An eager tensor has no `op`. From float to float only: by way of integers a cast rounds.
    while (
        tf.is_symbolic_tensor(output)
        and "_keras_logits" not in vars(output)
        and output.op.type in ("Cast", "Identity")
        and output.op.inputs[0].dtype.is_floating
    ):
        output = output.op.inputs[0]
    return output


def _of_probabilities(loss: object) -> bool:
    """Whether a loss, as `compile` takes it, is a crossentropy of probabilities."""
    if isinstance(loss, str):
        return "crossentropy" in loss or loss in ("bce", "BCE", "ce")
    if isinstance(loss, keras.losses.Loss):
        return loss.get_config().get("from_logits") is False
    return "crossentropy" in str(loss)
