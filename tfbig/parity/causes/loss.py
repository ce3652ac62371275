"""Causes in the loss: what stands between the model's outputs and the scalar.

A hypothesis takes a head (an output with its loss) and returns the heads that the loop may have
had instead; the gradient of the loss by the output tells. `smoothed` returns a second target.
"""

import dataclasses
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from tfbig.parity.causes.forward import D28 as PRECISION
from tfbig.parity.causes.row import Row
from tfbig.parity.facts import Batch
from tfbig.parity.replay import Head
from tfbig.training import anatomy

MOST_PAIRS = 2**20  # elements of the outputs, each example with each label

Variant = tuple[Head, str]  # and what is said of it


def _is_float(y: Any) -> bool:
    return tf.is_tensor(y) and y.dtype.is_floating


def broadcast(head: Head, batch: Batch) -> list[Variant]:
    """D01: each prediction with each label, as (n,) against (n, 1) gives."""
    p, n = head.y_pred, len(batch)
    if not tf.is_tensor(p) or not tf.is_tensor(head.y) or len(p.shape) != 2 or p.shape[1] != 1:
        return []
    if n * n > MOST_PAIRS or tf.size(head.y) != n:
        return []

    def each_with_each(y: Any, y_pred: Any, w: Any) -> tf.Tensor:
        table = (anatomy.logits(y_pred), y_pred)
        rows = [ops.reshape(ops.repeat(t, n, axis=0), (n * n, 1)) for t in table]
        rows[1] = anatomy.with_logits(rows[1], rows[0] if table[0] is not y_pred else None)
        labels = ops.reshape(ops.tile(ops.reshape(y, (1, n)), (n, 1)), (n * n, 1))
        # A weight of shape (n,) goes along with the label, one of (n, 1) with the prediction.
        weight = (
            None
            if w is None
            else ops.reshape(
                ops.tile(ops.reshape(w, (1, n)), (n, 1))
                if len(w.shape) == 1
                else ops.repeat(ops.reshape(w, (n, 1)), n, axis=1),
                (n * n,),
            )
        )
        return head.loss(labels, rows[1], weight)

    said = f"the loss is the mean over {n} x {n} pairs: each prediction meets every label"
    variants = [(dataclasses.replace(head, loss=each_with_each), said)]
    w = head.sample_weight
    if tf.is_tensor(w) and len(w.shape) == 1:
        # (n,) weights on (n, 1) losses: each loss meets every weight.
        mean = float(tf.reduce_mean(tf.cast(w, "float32")))
        flat = dataclasses.replace(head, sample_weight=None, weight=head.weight * mean)
        variants.append((flat, f"each loss meets every weight, of which the mean is {mean:.6g}"))
    return variants


def without_weight(head: Head, batch: Batch) -> list[Variant]:
    """D15: no sample weights."""
    if batch.own_weight is None or head.sample_weight is None:
        return []
    return [(dataclasses.replace(head, sample_weight=None), "it is the gradient without weights")]


def without_class_weight(head: Head, batch: Batch) -> list[Variant]:
    """D17: no class weights."""
    if not batch.class_weighted or keras.tree.is_nested(batch.own_weight):
        return []
    plain = dataclasses.replace(head, sample_weight=batch.own_weight)
    return [(plain, "it is the gradient with class_weight=None")]


def without_mask(head: Head, batch: Batch) -> list[Variant]:
    """D19: padding counts."""
    if not tf.is_tensor(head.y_pred) or anatomy.mask(head.y_pred) is None:
        return []
    bare = anatomy.without_memory(head.y_pred, mask=True)
    padded = int(tf.size(anatomy.mask(head.y_pred))) - int(
        tf.reduce_sum(tf.cast(anatomy.mask(head.y_pred), "int32"))
    )
    said = f"it is the gradient without the mask: {padded} padded places count"
    return [(dataclasses.replace(head, y_pred=bare), said)]


def shifted(head: Head, batch: Batch) -> list[Variant]:
    """D20: labels shifted by one place in time."""
    if not tf.is_tensor(head.y) or len(head.y.shape) < 2 or head.y.shape[1] < 2:
        return []
    if len(head.y_pred.shape) < 3:
        return []
    return [
        (
            dataclasses.replace(head, y=ops.roll(head.y, by, axis=1)),
            f"it is the gradient for labels that are shifted by {by} along time",
        )
        for by in (-1, 1)
    ]


def _flipped(head: Head, now: bool) -> list[Head]:
    kwargs = anatomy.loss_arguments(head.loss)
    if kwargs is None or kwargs.get("from_logits") is not now:
        return []
    return [dataclasses.replace(head, loss=anatomy.loss_with(head.loss, from_logits=not now))]


def logits_as_probabilities(head: Head, batch: Batch) -> list[Variant]:
    """D21: from_logits is missing."""
    said = "it is the gradient with from_logits=False: logits are taken for probabilities"
    return [(other, said) for other in _flipped(head, True)]


def softmax_twice(head: Head, batch: Batch) -> list[Variant]:
    """D22: a softmax (or sigmoid) on what is one already."""
    said = "it is the gradient with a second softmax or sigmoid on the probabilities"
    variants = []
    for other in _flipped(head, False):
        bare = anatomy.without_memory(head.y_pred, logits=True)
        variants.append((dataclasses.replace(other, y_pred=bare), said))
    kwargs = anatomy.loss_arguments(head.loss) or {}
    if kwargs.get("from_logits") and tf.is_tensor(head.y_pred):
        activation = ops.softmax if head.y_pred.shape[-1] > 1 else ops.sigmoid
        # As probabilities without memory, and in a cross-entropy that takes them for logits.
        twice = anatomy.without_memory(activation(head.y_pred), logits=True)
        variants.append((dataclasses.replace(head, y_pred=twice), said))
    return variants


def logits_forgotten(head: Head, batch: Batch) -> list[Variant]:
    """D23: a cast or a reshape after the softmax, past which Keras does not find the logits."""
    if not tf.is_tensor(head.y_pred) or anatomy.logits(head.y_pred) is head.y_pred:
        return []
    bare = anatomy.without_memory(head.y_pred, logits=True)
    p = np.asarray(head.y_pred, "float64")
    saturated = int(((p < 1e-7) | (p > 1 - 1e-7)).any(axis=-1).sum())
    said = (
        f"it is the gradient of probabilities clipped at 1e-7; {saturated} of {len(batch)} "
        f"examples are beyond"
    )
    return [(dataclasses.replace(head, y_pred=bare), said)]


def other_arguments(head: Head, batch: Batch) -> list[Variant]:
    """D24: an argument of the loss at its default."""
    kwargs = anatomy.loss_arguments(head.loss)
    if not kwargs:
        return []
    defaults = anatomy.loss_defaults(head.loss)
    variants = []
    for name, value in kwargs.items():
        if name in defaults and name not in ("from_logits", "axis") and value != defaults[name]:
            other = anatomy.loss_with(head.loss, **{name: defaults[name]})
            said = f"it is the gradient with {name}={defaults[name]!r}; the model's has {value!r}"
            variants.append((dataclasses.replace(head, loss=other), said))
    return variants


def smoothed(head: Head, batch: Batch) -> Head | None:
    """D24: the same loss against equal probabilities, the second column of label smoothing."""
    kwargs = anatomy.loss_arguments(head.loss)
    if kwargs is None or "from_logits" not in kwargs or not tf.is_tensor(head.y_pred):
        return None
    classes = head.y_pred.shape[-1]
    uniform = tf.fill(tf.shape(head.y_pred), 1.0 / max(classes, 2))
    if "label_smoothing" in anatomy.loss_defaults(head.loss):
        plain = anatomy.loss_with(head.loss, label_smoothing=0.0)
        return dataclasses.replace(head, loss=plain, y=uniform)
    if anatomy.is_sparse_crossentropy(head.loss):
        loss = keras.losses.CategoricalCrossentropy(from_logits=kwargs["from_logits"])
        return dataclasses.replace(head, loss=loss, y=uniform)
    return None


def half_outputs(head: Head, batch: Batch) -> list[Variant]:
    """D28: outputs cast to half precision before the loss."""
    if not tf.is_tensor(head.y_pred):
        return []
    variants = []
    for dtype in ("float16", "bfloat16"):
        cast = ops.cast(ops.cast(head.y_pred, dtype), "float32")
        bare = anatomy.without_memory(cast, logits=True)
        said = f"it is the gradient with the outputs rounded to {dtype}"
        variants.append((dataclasses.replace(head, y_pred=bare), said))
    return variants


def labels_of_another_kind(head: Head, batch: Batch) -> list[Variant]:
    """D64: class numbers where one column for each class belongs."""
    p, y = head.y_pred, head.y
    if not anatomy.is_sparse_crossentropy(head.loss) or not tf.is_tensor(p) or p.shape[-1] < 2:
        return []
    from_logits = (anatomy.loss_arguments(head.loss) or {}).get("from_logits", False)

    def spread(y: Any, y_pred: Any) -> tf.Tensor:
        labels = ops.cast(ops.reshape(y, (*y_pred.shape[:-1], 1)), "float32")
        logits = anatomy.logits(y_pred)
        known = from_logits or logits is not y_pred
        log_p = ops.log_softmax(logits) if known else ops.log(y_pred + 1e-7)
        return ops.sum(-labels * log_p, axis=-1)

    said = "it is the gradient with the class number as the target of every class"
    first, n = ops.zeros_like(y), len(batch)

    def each_with_each(y: Any, y_pred: Any, w: Any) -> tf.Tensor:
        logits = anatomy.logits(y_pred)
        rows = anatomy.with_logits(
            ops.repeat(y_pred, n, axis=0),
            None if logits is y_pred else ops.repeat(logits, n, axis=0),
        )
        return head.loss(ops.tile(ops.reshape(y, (-1,)), (n,)), rows, None)

    pairs = [
        (
            dataclasses.replace(head, loss=each_with_each),
            f"the loss is the mean over {n} x {n} pairs: each prediction meets every label",
        )
    ]
    if len(p.shape) != 2 or n * n * p.shape[-1] > MOST_PAIRS:
        pairs = []
    return pairs + [
        (dataclasses.replace(head, loss=anatomy.reduced_like(head.loss, spread)), said),
        (
            dataclasses.replace(head, y=first),
            "it is the gradient with class 0 for every label: argmax of a column of numbers",
        ),
    ]


# Besides the catalogue: the loss is another one.
OTHERS: tuple[type[keras.losses.Loss], ...] = (
    keras.losses.MeanSquaredError,
    keras.losses.MeanAbsoluteError,
    keras.losses.Huber,
    keras.losses.LogCosh,
    keras.losses.BinaryCrossentropy,
    keras.losses.CategoricalCrossentropy,
    keras.losses.KLDivergence,
    keras.losses.Hinge,
)


def another_loss(head: Head, batch: Batch) -> list[Variant]:
    """D67: another of Keras's losses."""
    if not tf.is_tensor(head.y) or not tf.is_tensor(head.y_pred):
        return []
    if tuple(head.y.shape) != tuple(head.y_pred.shape):
        return []
    losses: list[Any] = [other() for other in OTHERS if not isinstance(head.loss, other)]
    return [
        (dataclasses.replace(head, loss=loss), f"it is the gradient of {loss.name}")
        for loss in losses
    ]


D01 = Row(
    "D01",
    "labels or weights of shape (n,) meet predictions of shape (n, 1), broadcast to (n, n)",
    "y = tf.reshape(y, tf.shape(predictions))",
    broadcast,
    threads=("tensorflow#28901", "tensorflow#40323", "tensorflow#52115", "keras#16836"),
)
D15 = Row(
    "D15",
    "sample_weight is ignored",
    "loss = loss_fn(y, predictions, sample_weight=sample_weight)",
    without_weight,
)
D17 = Row(
    "D17",
    "class_weight is ignored (fit hands it to the step inside sample_weight)",
    "loss = loss_fn(y, predictions, sample_weight=sample_weight)",
    without_class_weight,
    threads=("tensorflow#43902", "keras#15119"),
)
D19 = Row(
    "D19",
    "padding counts in the loss: the mask is ignored",
    "loss = model.compute_loss(x, y, predictions, sample_weight), which knows the mask",
    without_mask,
)
D20 = Row(
    "D20",
    "the labels are shifted by one place in time",
    "compare the prediction at place t with the label at place t: y[:, t]",
    shifted,
)
D21 = Row(
    "D21",
    "logits are handed to a loss that takes probabilities",
    "the loss with from_logits=True, as the model is compiled",
    logits_as_probabilities,
    threads=("tensorflow#35533", "tensorflow#35585"),
)
D22 = Row(
    "D22",
    "a softmax or sigmoid is applied twice",
    "from_logits=False where the model ends in a softmax or sigmoid; no second one elsewhere",
    softmax_twice,
    threads=("keras#16906",),
)
D23 = Row(
    "D23",
    "a cast, reshape or identity after the softmax hides the logits from Keras's loss",
    "hand the model's output to the loss as it is, or output logits and use from_logits=True",
    logits_forgotten,
    threads=("tensorflow#32869", "tensorflow#32895"),
)
D24 = Row(
    "D24",
    "the loss has other arguments (label smoothing, delta, gamma) than the model's",
    "use the compiled loss: model.compute_loss(x, y, predictions, sample_weight)",
    other_arguments,
)
D28 = dataclasses.replace(PRECISION, hypothesis=half_outputs)
D64 = Row(
    "D64",
    "labels of another kind: class numbers where one column for each class belongs",
    "sparse_categorical_crossentropy takes class numbers, categorical_crossentropy one-hot rows",
    labels_of_another_kind,
)
D67 = Row(
    "D67",
    "another loss function than the one the model is compiled with",
    "loss = model.compute_loss(x, y, predictions, sample_weight)",
    another_loss,
)
# In the order in which they are tried: the first that matches is named.
LOSS = (D15, D17, D01, D21, D22, D19, D20, D24, D23, D64, D28, D67)

D57 = Row(
    "D57",
    "loss_weights are missing, or meet the wrong outputs",
    "loss = model.compute_loss(x, y, predictions, sample_weight), which knows the loss weights",
    threads=("keras#17260",),
)
D58 = Row(
    "D58",
    "what the model's own compute_loss adds (a gradient penalty) is missing",
    "loss = model.compute_loss(x, y, predictions, sample_weight)",
)
D55 = Row(
    "D55",
    "fit uses only the first of several losses on one output (V13)",
    "compile one loss that is the sum: loss=lambda y, p: a(y, p) + b(y, p)",
)
D56 = Row(
    "D56",
    "fit still uses the loss of an earlier compile (V14)",
    "compile with the loss that is meant, or build a new model",
)
ROWS = (*(row for row in LOSS if row is not D28), D55, D56, D57, D58)
