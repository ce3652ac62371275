"""V22: `keras.distribution` is accepted on TensorFlow and does nothing.

A kernel that a LayoutMap splits over two devices is an ordinary variable on one, in silence;
`keras.distribution.initialize()` is an AttributeError. Keras's file on it begins with
"DO NOT USE".
"""

import keras

from tfbig.compat import trial

SUMMARY = "keras.distribution does nothing on TensorFlow, in silence"
WHEN = ""
MEND = "KERAS_BACKEND=jax, or tf.distribute.MirroredStrategy"


def meets(model: keras.Model) -> bool:
    """Whether a distribution is set in this program."""
    return keras.distribution.distribution() is not None


def present() -> bool:
    """Whether a split kernel has no layout."""
    return measured() == "unsplit"


@trial.traceless()
def measured() -> str:
    """What becomes of a kernel that two devices were to share: "unsplit", "split" or an error."""
    layouts = []

    def run():
        mesh = keras.distribution.DeviceMesh((1, 2), ["batch", "model"], ["cpu:0", "cpu:1"])
        layout = keras.distribution.LayoutMap(mesh)
        layout[".*kernel"] = (None, "model")
        split = keras.distribution.ModelParallel(layout_map=layout, batch_dim_name="batch")
        with split.scope():
            dense = keras.layers.Dense(4, kernel_initializer="zeros")
            dense.build((None, 2))
        layouts.append("unsplit" if dense.kernel._layout is None else "split")

    return trial.error(run) or layouts[0]
