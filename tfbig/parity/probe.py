"""The probe: an optimizer that writes the gradients down and changes nothing.

In the place of the model's optimizer it sees what any driver hands to it, inside stock `fit`,
inside a compiled loop, under XLA and mixed precision: each variable's gradient goes to a slot,
repeated rows of an embedding summed. Constraints, weight decay, clipping and averaging are off
meanwhile.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras import ops


class Probe(keras.optimizers.Optimizer):
    """A Keras optimizer that records gradients. Works on every Keras backend.

    >>> import numpy as np
    >>> model = keras.Sequential([keras.layers.Dense(1, kernel_initializer="ones")])
    >>> probe = Probe()
    >>> model.compile(probe, loss="mse")
    >>> history = model.fit(np.ones((4, 2)), np.zeros((4, 1)), verbose=0)
    >>> probe.gradients()[0].ravel().tolist(), model.get_weights()[0].ravel().tolist()
    ([4.0, 4.0], [1.0, 1.0])
    """

    def __init__(self, name: str = "probe") -> None:
        super().__init__(learning_rate=0.0, name=name)

    def build(self, variables: list[keras.Variable]) -> None:
        """Creates a slot for the gradient of each variable, and one for how often it came."""
        if self.built:
            return
        super().build(variables)
        self._gradients = self.add_optimizer_variables(variables, "gradient")
        self._counts = [
            self.add_variable((), dtype="int32", name=f"count_{n}") for n in range(len(variables))
        ]

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Writes the gradient down."""
        index = self._get_variable_index(variable)
        slot = self._gradients[index]
        # A sparse gradient becomes dense here: rows that repeat are added.
        slot.assign(ops.cast(ops.convert_to_tensor(gradient, sparse=False), slot.dtype))
        self.assign_add(self._counts[index], ops.ones((), "int32"))

    def calls(self) -> int:
        """How often gradients were applied."""
        return int(self.iterations)

    def gradients(self) -> list[np.ndarray | None]:
        """The gradients of the last step, one for each variable; `None` where none came."""
        if not self.built:
            return []
        return [
            ops.convert_to_numpy(slot.value) if int(count) else None
            for slot, count in zip(self._gradients, self._counts, strict=True)
        ]


@contextlib.contextmanager
def probing(model: keras.Model) -> Iterator[Probe]:
    """Puts a probe in the place of the model's optimizer.

    The old optimizer's `apply` leads to the probe as well, for a loop that holds the optimizer in a
    variable of its own. A `LossScaleOptimizer` stays around the probe with its scale, so the probe
    sees unscaled gradients. Everything is put back at the end.

    Args:
        model: a compiled and built model.

    Yields:
        The probe.
    """
    optimizer = model.optimizer
    probe = Probe()
    replacement: keras.optimizers.Optimizer = probe
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        scale = float(optimizer.dynamic_scale) if optimizer.built else optimizer.initial_scale
        replacement = keras.optimizers.LossScaleOptimizer(probe, initial_scale=scale)
    elif optimizer.loss_scale_factor is not None:
        probe.loss_scale_factor = optimizer.loss_scale_factor
    replacement.build(model.trainable_variables)
    constraints = [(v, v.constraint) for v in model.trainable_variables]
    functions = model.train_function, model.test_function, model.predict_function
    for variable, _ in constraints:
        variable.constraint = None
    model.optimizer = replacement
    model.train_function = model.test_function = model.predict_function = None
    object.__setattr__(optimizer, "apply", replacement.apply)
    try:
        yield probe
    finally:
        object.__delattr__(optimizer, "apply")
        model.optimizer = optimizer
        model.train_function, model.test_function, model.predict_function = functions
        for variable, constraint in constraints:
            variable.constraint = constraint
