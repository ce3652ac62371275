"""Causes that multiply the whole gradient by a number, and those in what is added to the loss.

A hypothesis takes `(step, part)` and returns the factors that it predicts, each with what is said.
"""

import math

import keras
import numpy as np
import tensorflow as tf

from tfbig.parity.causes.row import LATER, REPLICAS, Row
from tfbig.parity.facts import Part, Step
from tfbig.parity.observe import loss_scale
from tfbig.training import anatomy

Factors = list[tuple[float, str]]


def _shape(part: Part) -> tuple[int, ...]:
    return tuple(part.forwards[0].outputs[0].shape) if part.forwards[0].outputs else ()


def summed(step: Step, part: Part) -> Factors:
    """D11: a sum over the examples, or over all values of the loss."""
    shape, n = _shape(part), len(part.batch)
    counts = {
        n: f"the number of examples is {n}",
        n * n: f"the loss has {n} x {n} values",
    }
    if len(shape) > 2:
        values = math.prod(shape[:-1])
        counts[values] = f"the loss has {values} values"
    if shape and math.prod(shape) not in counts and shape[-1] > 1:
        counts[math.prod(shape)] = f"the outputs have {math.prod(shape)} elements"
        counts.setdefault(shape[-1], f"each output has {shape[-1]} elements")
    for valid, _ in _valid(part):
        counts.setdefault(valid, f"{valid} places are valid")
    return [(f, said) for c, said in counts.items() for f in (float(c), 1.0 / c)]


def by_the_sum_of_weights(step: Step, part: Part) -> Factors:
    """D16: divided by the sum of the weights, where Keras divides by their number."""
    weight = part.batch.sample_weight
    if weight is None or keras.tree.is_nested(weight):
        return []
    means = {float(np.mean(np.asarray(weight, "float64")))}
    for mask in _masks(part):  # of the valid places only
        valid, w = np.asarray(mask, "float64"), np.asarray(weight, "float64")
        w = w.reshape(*w.shape, *([1] * (valid.ndim - w.ndim))) if w.ndim < valid.ndim else w
        if w.ndim == valid.ndim and valid.sum():
            means.add(float((valid * w).sum() / valid.sum()))
    return [(1 / m, f"1 / mean(sample_weight) is {1 / m:.6g}") for m in means if m > 0]


def by_all_and_not_by_the_valid(step: Step, part: Part) -> Factors:
    """D18: divided by all places, where Keras divides by those that the mask leaves."""
    return [(valid / all_, f"{valid} of {all_} places are valid") for valid, all_ in _valid(part)]


def _valid(part: Part) -> list[tuple[int, int]]:
    """For each output with a mask: how many places are valid, and how many there are."""
    return [
        (int(tf.reduce_sum(tf.cast(mask, "int32"))), int(tf.size(mask))) for mask in _masks(part)
    ]


def _masks(part: Part) -> list[tf.Tensor]:
    masks = [anatomy.mask(o) for f in part.forwards for o in f.outputs]
    return [mask for mask in masks if mask is not None]


def of_the_tokens(step: Step, part: Part) -> Factors:
    """D61: per sequence for per token."""
    shape = _shape(part)
    if len(shape) < 3:
        return []
    time = shape[1]
    n = len(part.batch)
    masked = [(v / n, f"{v} valid places in {n} sequences") for v, _ in _valid(part)]
    said = f"the sequence has {time} places"
    return [(float(time), said), (1.0 / time, said), *masked]


def of_the_micro_batches(step: Step, part: Part) -> Factors:
    """D13: a sum over micro-batches where their mean belongs."""
    k = len(step.parts())
    if k < 2 or step.replicas > 1:
        return []
    said = f"the step has {k} micro-batches"
    return [(float(k), said), (1.0 / k, said)]


def of_the_replicas(step: Step, part: Part) -> Factors:
    """D12: the number of replicas, missing or twice."""
    n = step.replicas
    return [(f, f"the loop runs on {n} replicas") for f in (float(n), 1.0 / n)] if n > 1 else []


def not_scaled(step: Step, part: Part) -> Factors:
    """D25: the optimizer divides by its loss scale, and the loss was not multiplied."""
    scale = loss_scale(step.applies[0].optimizer) if step.applies else 1.0
    return [(1 / scale, f"the optimizer's loss scale is {scale:g}")] if scale != 1 else []


def not_unscaled(step: Step, part: Part) -> Factors:
    """D26: the loss was multiplied, and the optimizer in use does not divide."""
    scale = loss_scale(step.model.optimizer)
    return [(scale, f"the model's loss scale is {scale:g}")] if scale != 1 else []


D11 = Row(
    "D11",
    "the loss is a sum where fit takes the mean",
    "loss = tf.reduce_mean(loss)",
    summed,
    threads=("tensorflow#33988", "keras#15546", "keras#16529"),
)
D12 = Row(
    "D12",
    "the number of replicas is missing in the loss, or in it twice",
    "loss = model.compute_loss(...), which divides by the replicas, once",
    of_the_replicas,
    sees=REPLICAS,
    threads=("tensorflow#45923", "keras#16285", "keras#19308"),
)
D13 = Row(
    "D13",
    "accumulated gradients are summed, not averaged",
    "gradients = [g / micro_batches for g in gradients]",
    of_the_micro_batches,
)
D14 = Row(
    "D14",
    "a mean of means over micro-batches of unequal size",
    "weigh each micro-batch by its number of examples: g * n_i / n",
)
D16 = Row(
    "D16",
    "the loss is divided by the sum of the weights; Keras divides by the number of examples",
    "loss = tf.reduce_sum(losses * sample_weight) / batch_size",
    by_the_sum_of_weights,
    threads=("TauMLTools#90", "keras#19740"),
)
D18 = Row(
    "D18",
    "masked places are zero in the loss, but still divide it",
    "loss = tf.reduce_sum(losses * mask) / tf.reduce_sum(mask)",
    by_all_and_not_by_the_valid,
    threads=("tensorflow#57392",),
)
D25 = Row(
    "D25",
    "the loss is not scaled, and the optimizer unscales the gradient",
    "tape.gradient(optimizer.scale_loss(loss), variables)",
    not_scaled,
    threads=("keras#19244", "keras#19479"),
)
D26 = Row(
    "D26",
    "the loss is scaled, and nothing unscales the gradient",
    "apply with the LossScaleOptimizer that scaled the loss",
    not_unscaled,
    threads=("tensorflow#49368", "keras#20894"),
)
D61 = Row(
    "D61",
    "the loss is divided by sequences where fit divides by tokens, or the other way",
    "loss = tf.reduce_mean(loss), over batch and time",
    of_the_tokens,
)
D62 = Row(
    "D62",
    "the temperature in distillation: T^2 is missing or in it twice",
    "comes with tfbig's distillation",
    kind=LATER,
)
D63 = Row(
    "D63",
    "reduce_mean in an overridden compute_loss under a strategy (V12)",
    "comes with tfbig's replicas",
    kind=LATER,
    sees=REPLICAS,
    threads=("keras#16285",),
)
D32 = Row(
    "D32",
    "each replica clips its own gradient before they are summed (V4)",
    "comes with tfbig's replicas",
    kind=LATER,
    sees=REPLICAS,
    threads=("lczero-training#162",),
)
# In the order in which they are tried: where two predict the same number both are named.
SCALE = (D25, D26, D13, D12, D16, D18, D11, D61)

D03 = Row(
    "D03",
    "the regularisation of weights is in one of the two only",
    "loss += sum(model.losses); in fit a regularizer counts if it is set before the layer is built",
    threads=("tensorflow#33556", "tensorflow#33635", "yolov4-tflite#369", "keras#16906"),
)
D04 = Row("D04", "the regularisation is in the loss twice", "add sum(model.losses) once")
D05 = Row(
    "D05",
    "what layers add to the loss (add_loss, activity regularisation) is missing",
    "loss += sum(model.losses)",
    threads=("tensorflow#32127",),
)
ROWS = (*SCALE, D14, D62, D63, D32, D03, D04, D05)
