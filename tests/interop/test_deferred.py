"""Variables that are made when their tensor is read."""

import threading

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.cli import language_folders
from tfbig.interop.checkpoint import open_checkpoint
from tfbig.interop.deferred import deferred_variables
from tfbig.interop.loading import network
from tfbig.interop.stored_tensor import CheckpointError


class Watched:
    """The tensors of a checkpoint; it tells which were read, and fails at one of them."""

    def __init__(self, checkpoint, fails_at=None, error=None):
        self.checkpoint, self.fails_at, self.error = checkpoint, fails_at, error
        self.read_names = []

    def names(self):
        return self.checkpoint.names()

    def read(self, name):
        self.read_names.append(name)
        if len(self.read_names) == self.fails_at:
            raise self.error
        return self.checkpoint.read(name)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return open_checkpoint(language_folders.write(tmp_path_factory.mktemp("models") / "llama"))


def test_each_tensor_is_read_once_and_becomes_its_variable(checkpoint):
    watched = Watched(checkpoint)
    model = network(checkpoint.config, watched)
    assert sorted(watched.read_names) == sorted(checkpoint.names())
    for found, expected in zip(model.variables, language_folders.model().variables, strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("error", [CheckpointError("cut short"), KeyboardInterrupt()])
def test_after_an_error_nothing_is_read_and_the_next_load_works(checkpoint, error):
    watched = Watched(checkpoint, 3, error)
    with pytest.raises(type(error)):
        network(checkpoint.config, watched)
    assert len(watched.read_names) == 3
    network(checkpoint.config, checkpoint)
    # Layers are as before, too.
    dense = keras.layers.Dense(2, kernel_initializer="ones")
    dense.build((None, 1))
    assert float(keras.ops.sum(dense.kernel)) == 2


def test_a_wrong_shape_is_told(checkpoint):
    config = {**checkpoint.config, "vocab_size": 301}
    with pytest.raises(CheckpointError, match=r"embed_tokens.*\(300, 16\).*\(301, 16\)"):
        network(config, checkpoint)


def test_what_does_not_fit_into_memory_is_not_tried_again(checkpoint):
    """Keras keeps a variable that it could not make, and fails with it at every later scope."""
    with pytest.raises(tf.errors.ResourceExhaustedError), deferred_variables():
        keras.layers.Embedding(10**9, 10**6).build((None,))
    network(checkpoint.config, checkpoint)


def test_after_an_error_inside_nothing_is_made():
    """Else a checkpoint of 140 GB with a missing tensor takes 140 GB to say so."""
    dense = keras.layers.Dense(2)
    with pytest.raises(ValueError, match="missing"), deferred_variables() as deferred:
        dense.build((None, 1))
        deferred[id(dense.kernel)].take = lambda: pytest.fail("it was read")
        raise ValueError("missing")


def test_layers_of_other_threads_are_let_alone():
    dense, built = keras.layers.Dense(2, kernel_initializer="ones"), threading.Event()

    def elsewhere():
        dense.build((None, 1))
        built.set()

    with deferred_variables():
        thread = threading.Thread(target=elsewhere)
        thread.start()
        assert built.wait(30)
        thread.join()
    assert float(keras.ops.sum(dense.kernel)) == 2


def test_an_error_while_building_is_raised_as_it_is():
    with pytest.raises(ValueError, match="mine"), deferred_variables():
        keras.layers.Dense(2).build((None, 1))
        raise ValueError("mine")
