"""Strictness for every test: one seed, no leftovers of the test before, and few messages."""

import gc
import os

import pytest

# Before anything imports TensorFlow, which reads it once.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("MPLBACKEND", "agg")


@pytest.fixture(scope="session")
def _frozen_imports():
    """TensorFlow's half a million objects, which stay, out of the collector's sight.

    `clear_session` collects garbage after each test: 0.17 s of looking through them, else 1 ms.
    """
    import keras  # noqa: F401
    import tensorflow as tf  # noqa: F401

    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _fresh_keras(_frozen_imports):
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
    gc.freeze()


def pytest_terminal_summary(terminalreporter):
    """Prints what tests say by `record_property("say", text)`: a worker of xdist cannot print."""
    for report in terminalreporter.getreports("passed") + terminalreporter.getreports("failed"):
        for name, text in report.user_properties:
            if name == "say" and report.when == "call":
                terminalreporter.write_line(text)
