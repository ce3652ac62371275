"""V20: Muon never moves the kernels of attention.

It takes matrices, and the query, key, value and output kernels of Keras's attention have three
axes: all four get AdamW, which "is not configurable". The biases of query, key and value do have
two axes, so Muon orthogonalises these.
"""

import keras

from tfbig.compat import ask, trial

SUMMARY = "Muon gives the kernels of attention and of convolutions to AdamW"
WHEN = ""
MEND = (
    "attention has to do with AdamW; keep Muon from its biases: "
    'Muon(exclude_layers=["query/bias", "key/bias", "value/bias"])'
)


def meets(model: keras.Model) -> bool:
    """Whether Muon meets kernels of more than two axes."""
    muon = any(isinstance(o, keras.optimizers.Muon) for o in ask.optimizers(model))
    attention = ask.has(model, keras.layers.MultiHeadAttention, keras.layers.GroupQueryAttention)
    return muon and (attention or any(len(v.shape) > 2 for v in model.trainable_variables))


def present() -> bool:
    """Whether AdamW has the kernels."""
    return "query/kernel" in measured()


@trial.traceless()
def measured() -> list[str]:
    """The weights of an attention that Muon gives to AdamW."""
    attention = keras.layers.MultiHeadAttention(2, 2, name="attention", kernel_initializer="zeros")
    attention.build((None, 3, 4), (None, 3, 4))
    optimizer = keras.optimizers.Muon()
    optimizer.build(attention.trainable_variables)
    # AdamW's second moment is there where AdamW is used.
    return [
        "/".join(variable.path.split("/")[-2:])
        for variable, velocity in zip(
            attention.trainable_variables, optimizer.adam_velocities, strict=True
        )
        if velocity is not None
    ]
