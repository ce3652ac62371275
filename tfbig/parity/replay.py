"""Replays a step of `fit` in parts: forward, loss, backward, update; and fits one list of arrays by
others, which is how the parts are compared.

A part is replayed on what the loop had before it. So each is judged alone, and several faults at
once stay apart.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfbig.parity import state as states
from tfbig.parity.arrays import Arrays
from tfbig.parity.facts import Batch
from tfbig.parity.observe import dense
from tfbig.training import anatomy, surgery


@dataclasses.dataclass(frozen=True)
class Head:
    """One output of the model and what it is compared with.

    Attributes:
        loss: `(y, y_pred, sample_weight) -> scalar`.
        weight: the loss's weight in the sum.
    """

    loss: Callable[[Any, Any, Any], tf.Tensor]
    weight: float
    y: Any
    y_pred: Any
    sample_weight: Any

    def value(self) -> tf.Tensor:
        """The scalar that this output adds to the loss."""
        return self.weight * tf.cast(self.loss(self.y, self.y_pred, self.sample_weight), "float32")


class Forward:
    """A forward pass on a tape, from a given state.

    Args:
        model: the model; its state afterwards is that after the pass.
        before: the state to begin from.
        x: the input.
        training: the flag.
        under: a context that changes how the model computes (`contextlib.nullcontext` by default).
    """

    def __init__(
        self,
        model: keras.Model,
        before: states.State,
        x: Any,
        training: bool = True,
        under: Callable[[keras.Model], Any] = contextlib.nullcontext,
    ) -> None:
        states.put(model, before, slots=False)
        self.model, self.training, self.under = model, training, under
        with under(model), tf.GradientTape(persistent=True) as self.tape:
            self.y_pred = surgery.forward(model, x, training=training)
            self.penalties = list(model.losses)
        self.outputs = [o for o in keras.tree.flatten(self.y_pred) if o.dtype.is_floating]
        self.after = states.take(model)

    def heads(self, y: Any, sample_weight: Any, x: Any = None) -> list[Head]:
        """The outputs with their losses; all of `compute_loss` as one where they are not known."""
        with self.tape:
            parts = anatomy.losses_by_output(self.model, y, self.y_pred, sample_weight)
        if parts and type(self.model).compute_loss is keras.Model.compute_loss:
            return [Head(*part) for part in parts]

        def whole(y: Any, y_pred: Any, sample_weight: Any) -> tf.Tensor:
            loss = surgery.compute_loss(self.model, x, y, y_pred, sample_weight, training=True)
            return loss - sum((tf.reduce_sum(p) for p in self.penalties), start=tf.zeros(()))

        return [Head(whole, 1.0, y, self.y_pred, sample_weight)]

    def deltas(self, loss: Callable[[], tf.Tensor]) -> list[np.ndarray | None]:
        """The gradient of a loss by each output (by its logits, where Keras remembers them)."""
        with self.tape:
            value = loss()
        return [dense(g) for g in self.tape.gradient(value, self._ends())]

    def backward(self, deltas: Arrays) -> list[np.ndarray | None]:
        """The gradient of the weights that follows from gradients of the outputs."""
        pairs = [(o, d) for o, d in zip(self._ends(), deltas) if d is not None]
        if not pairs:
            return [None] * len(self.model.trainable_variables)
        targets, given = [o for o, _ in pairs], [tf.cast(d, o.dtype) for o, d in pairs]
        variables = self.model.trainable_variables
        return [dense(g) for g in self.tape.gradient(targets, variables, output_gradients=given)]

    def penalty_gradients(self) -> list[list[np.ndarray | None]]:
        """For each entry of `model.losses` its gradient by the weights."""
        variables = self.model.trainable_variables
        return [[dense(g) for g in self.tape.gradient(p, variables)] for p in self.penalties]

    def beyond_outputs(self, batch: Batch) -> list[np.ndarray | None]:
        """What an overridden `compute_loss` derives from the weights past outputs and penalties."""
        with self.tape:
            loss = surgery.compute_loss(
                self.model, batch.x, batch.y, self.y_pred, batch.sample_weight, training=True
            )
        variables = self.model.trainable_variables
        total = [dense(g) for g in self.tape.gradient(loss, variables)]
        known = [
            self.backward([dense(g) for g in self.tape.gradient(loss, self._ends())]),
            *self.penalty_gradients(),
        ]
        return [
            None if t is None else t - sum(k for k in column if k is not None)
            for t, *column in zip(total, *known)
        ]

    def _ends(self) -> list[tf.Tensor]:
        return [anatomy.logits(output) for output in self.outputs]


def gradient(model: keras.Model, begin: states.State, batch: Batch) -> tuple[list, float]:
    """The gradient that `fit` has from a state on a batch, unscaled, and the loss."""
    replay = Forward(model, begin, batch.x)
    with replay.tape:
        loss = surgery.compute_loss(
            model, batch.x, batch.y, replay.y_pred, batch.sample_weight, training=True
        )
    variables = model.trainable_variables
    values = replay.tape.gradient(loss, variables)
    return [dense(g) for g in values], float(loss)


def update(
    model: keras.Model,
    before: states.State,
    gradients: Sequence[Any],
    optimizer: keras.optimizers.Optimizer | None = None,
) -> list[np.ndarray]:
    """The weights after an update by the model's optimizer, or by another.

    Args:
        model: the model; it is left in the state after the update.
        before: the state to begin from, slots too.
        gradients: as the optimizer is to be given them (times its loss scale).
        optimizer: the model's own by default.
    """
    states.put(model, before)
    (optimizer or model.optimizer).apply(list(gradients), model.trainable_variables)
    return [v.numpy() for v in model.trainable_variables]
