"""V21: training that is resumed in the middle of an epoch begins the epoch again.

`BackupAndRestore(save_freq=2)` writes the epoch and the batch, and reads the epoch alone. Killed
after 4 of 6 batches, the second run goes over all 6 again: the optimizer counts 10 updates, where
an undisturbed epoch has 6. Nor are the order of the data and the random numbers resumed.
"""

import os
import tempfile

import keras
import numpy as np

from tfbig.compat import trial

SUMMARY = "training resumed in the middle of an epoch goes over its first batches again"
WHEN = "if you resume by BackupAndRestore with save_freq in steps"
MEND = 'BackupAndRestore(folder, save_freq="epoch")'


def meets(model: keras.Model) -> bool:
    """Always: it hinges on the callbacks of `fit`."""
    return True


def present() -> bool:
    """Whether the resumed epoch has more updates than batches."""
    return measured() > 6


class _Killed(Exception):
    pass


class _KillAfterFour(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if batch == 3:
            raise _Killed


@trial.traceless()
def measured() -> int:
    """The updates of one epoch of 6 batches that was killed after 4 and resumed."""
    x = np.ones((6, 1))
    with tempfile.TemporaryDirectory() as folder:

        def train(*callbacks):
            dense = keras.layers.Dense(1, kernel_initializer="zeros")
            model = keras.Sequential([keras.Input((1,)), dense])
            model.compile("sgd", "mse")
            backup = keras.callbacks.BackupAndRestore(os.path.join(folder, "b"), save_freq=2)
            model.fit(x, x, batch_size=1, verbose=0, callbacks=[backup, *callbacks])
            return int(model.optimizer.iterations)

        trial.error(lambda: train(_KillAfterFour()))
        return train()
