"""Strictness for every test: one seed, no leftovers of the test before, and few messages."""

import os

import pytest

# Before anything imports TensorFlow, which reads it once.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("MPLBACKEND", "agg")


@pytest.fixture(autouse=True)
def _fresh_keras():
    # Here and not above: what needs no TensorFlow (`pytest --help`, --collect-only of such tests)
    # does not wait for it.
    import keras
    import tensorflow as tf

    # A GPU would otherwise multiply float32 matrices with 10 bits of mantissa.
    tf.config.experimental.enable_tensor_float_32_execution(False)
    keras.utils.set_random_seed(0)
    yield
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy("float32")
    keras.backend.clear_session()
