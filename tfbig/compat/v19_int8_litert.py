"""V19: a model that was quantized to int8 cannot be exported to LiteRT.

Keras's int8 quantizes the activations as they come, and the converter has no operation for an int8
matrix product of that kind: ConverterError. int4 (weights alone) exports, and so does the model
that was not quantized.
"""

import contextlib
import os
import tempfile
from collections.abc import Iterator

import keras

from tfbig.compat import ask, trial

SUMMARY = "a model quantized to int8 cannot be exported to LiteRT"
WHEN = 'if you call quantize("int8") and then export(format="litert")'
MEND = (
    'export the float model: export(path, format="litert", '
    "optimizations=[tf.lite.Optimize.DEFAULT])"
)


def meets(model: keras.Model) -> bool:
    """Whether a layer multiplies by a matrix that can be quantized."""
    return ask.has(model, keras.layers.Dense, keras.layers.EinsumDense)


def present() -> bool:
    """Whether the export fails. It takes about a second."""
    return measured("int8") == "ConverterError"


@trial.traceless()
def measured(mode: str | None) -> str:
    """The error of the export of a quantized Dense."""
    dense = keras.layers.Dense(2, kernel_initializer="ones")
    model = keras.Sequential([keras.Input((8,)), dense])
    if mode:
        model.quantize(mode)
    with tempfile.TemporaryDirectory() as folder, _quiet():
        path = os.path.join(folder, "model.tflite")
        return trial.error(lambda: model.export(path, format="litert", verbose=False))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the converter's own report of the error from the terminal: it bypasses Python."""
    stderr = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(nowhere)
        os.close(stderr)
