"""Causes in what goes into the model and in how it computes.

A hypothesis on inputs takes `(step, part)` and returns the evidence or `None`. One on the forward
pass takes the model and the call that was seen, and returns the ways it may have been made.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfbig.parity.causes.row import LATER, Row
from tfbig.parity.facts import Part, Step
from tfbig.parity.observe import Forward, policies
from tfbig.training import surgery

BATCH_NORM = keras.layers.BatchNormalization


@dataclasses.dataclass(frozen=True)
class Way:
    """A way to call the model: the flag, and a context that changes how it computes."""

    training: bool = True
    under: Callable[[keras.Model], Any] = contextlib.nullcontext
    evidence: str = ""


def is_random(layer: keras.Layer) -> bool:
    """Whether a layer draws random numbers in training: dropout, noise, a cell with dropout."""
    seeded = isinstance(getattr(layer, "seed_generator", None), keras.random.SeedGenerator)
    return seeded and bool(
        getattr(layer, "rate", 0) or getattr(layer, "stddev", 0) or getattr(layer, "dropout", 0)
    )


def random_layers(model: keras.Model) -> list[keras.Layer]:
    """The layers that draw random numbers in training."""
    return [layer for layer in surgery.flatten_layers(model) if is_random(layer)]


def norms(model: keras.Model) -> list[keras.Layer]:
    """The BatchNorm layers that learn."""
    layers = surgery.flatten_layers(model)
    return [layer for layer in layers if isinstance(layer, BATCH_NORM) and layer.trainable]


@contextlib.contextmanager
def in_inference(layers: list[keras.Layer]) -> Iterator[None]:
    """Has some layers compute as in inference, whatever the flag."""
    with contextlib.ExitStack() as stack:
        for layer in layers:
            original = layer.call

            def call(*args: Any, original: Callable = original, **kwargs: Any) -> Any:
                return original(*args, **{**kwargs, "training": False})

            object.__setattr__(layer, "call", call)
            stack.callback(object.__delattr__, layer, "call")
        yield


@contextlib.contextmanager
def in_policies(model: keras.Model, names: Sequence[str]) -> Iterator[None]:
    """Has the model and its layers compute in other dtype policies."""
    layers = [model, *surgery.flatten_layers(model)]
    before = [layer.dtype_policy for layer in layers]
    try:
        for layer, name in zip(layers, names, strict=True):
            layer.dtype_policy = name
        yield
    finally:
        for layer, old in zip(layers, before):
            layer.dtype_policy = old


def _no_training_with_norm(model: keras.Model, seen: Forward) -> list[Way]:
    layers = norms(model)
    if not layers:
        return []
    said = "the outputs are those of training=False, and BatchNorm's moving mean moves by 0"
    ways = [Way(training=False, evidence=said)]
    if random_layers(model):
        said = "the outputs are those with BatchNorm in inference and dropout in training"
        ways.append(Way(under=lambda _: in_inference(layers), evidence=said))
    return ways


def _no_training_with_dropout(model: keras.Model, seen: Forward) -> list[Way]:
    layers = random_layers(model)
    if not layers:
        return []
    if not norms(model):
        said = "the outputs are those of training=False: nothing is dropped"
        return [Way(training=False, evidence=said)]
    said = "the outputs are those with dropout in inference and BatchNorm in training"
    return [Way(under=lambda _: in_inference(layers), evidence=said)]


def _other_policy(model: keras.Model, seen: Forward) -> list[Way]:
    now = policies(model)
    if seen.policies == now:
        return []
    other = [f"{a} for {b}" for a, b in zip(seen.policies, now) if a != b]
    said = f"{len(other)} layers compute in {other[0]} while the loop calls the model"
    return [Way(under=lambda m: in_policies(m, seen.policies), evidence=said)]


D08 = Row(
    "D08",
    "the model is called without training=True, so BatchNorm uses its moving statistics",
    "predictions = model(x, training=True)",
    _no_training_with_norm,
    threads=("tensorflow#31184", "tensorflow#33771", "michalfaber#13"),
)
D07 = Row(
    "D07",
    "the model is called without training=True, so dropout is off",
    "predictions = model(x, training=True)",
    _no_training_with_dropout,
)
D28 = Row(
    "D28",
    "another precision than the model's",
    "keep the model's own dtype policy: cast neither inputs, outputs nor gradients",
    _other_policy,
)
FORWARD = (D08, D07, D28)


def _pairs(step: Step, part: Part) -> list[tuple[np.ndarray, np.ndarray]]:
    seen = keras.tree.flatten(part.forwards[0].x)
    given = keras.tree.flatten(part.batches[0].x)
    if len(seen) != len(given):
        return []
    return [(np.asarray(a), np.asarray(b)) for a, b in zip(seen, given) if b is not None]


def _half_inputs(step: Step, part: Part) -> str | None:
    for seen, given in _pairs(step, part):
        for dtype in (tf.bfloat16, tf.float16):
            if given.dtype.kind == "f" and given.shape == seen.shape:
                rounded = tf.cast(tf.cast(given, dtype), tf.float32)
                if np.array_equal(np.asarray(seen, "float32"), rounded):
                    return f"the model is called with x rounded to {dtype.name}"
    return None


def _permuted_inputs(step: Step, part: Part) -> str | None:
    moved = None
    for seen, given in _pairs(step, part):
        if seen.shape != given.shape:
            return None
        a, b = seen.reshape(len(seen), -1), given.reshape(len(given), -1)
        if not np.array_equal(np.sort(_keys(a)), np.sort(_keys(b))):
            return None
        moved = int((_keys(a) != _keys(b)).sum())
    return (
        f"{moved} of {len(step.batch)} rows of x are at another place than in y" if moved else None
    )


def _keys(rows: np.ndarray) -> np.ndarray:
    return np.array([hash(row.tobytes()) for row in rows])


def _other_inputs(step: Step, part: Part) -> str | None:
    for seen, given in _pairs(step, part):
        if seen.shape != given.shape:
            return f"the model is called with x of shape {seen.shape}, and given was {given.shape}"
        if given.dtype.kind not in "fiu" or np.allclose(seen, given, rtol=1e-6, atol=0):
            continue
        a, b = seen.astype("float64").ravel(), given.astype("float64").ravel()
        both = (b != 0) & (a != 0)
        ratio = a[both] / b[both]
        if both.any() and np.ptp(ratio) <= 1e-4 * abs(ratio).max():
            return f"the model is called with {np.median(ratio):.6g} x"
        return f"the model is called with other inputs than given: up to {abs(a - b).max():.3g} off"
    return None


D47 = Row(
    "D47",
    "the inputs are scaled or augmented in the loop alone",
    "do it in the data, or in a layer of the model, so that fit does it too",
    _other_inputs,
)
D02_INPUTS = Row(
    "D02",
    "inputs and labels are out of step: each example has another's label",
    "shuffle x and y together: tf.data.Dataset.from_tensor_slices((x, y)).shuffle(n)",
    _permuted_inputs,
    threads=("tensorflow#37581",),
)
D28_INPUTS = dataclasses.replace(D28, hypothesis=_half_inputs)
INPUTS = (D28_INPUTS, D02_INPUTS, D47)

D10 = Row(
    "D10",
    "dropout draws another mask: the seeds are not at the place where fit's are",
    "leave the seed generators alone, and call the model once for each step",
)
D06 = Row(
    "D06",
    "the model is called twice inside the tape",
    "predictions = model(x, training=True), once, and use it for everything",
)
D09 = Row(
    "D09",
    "a second forward pass in training mode, which moves BatchNorm's statistics again",
    "for metrics use the predictions of the step, or model(x, training=False)",
)
D43 = Row(
    "D43",
    "the loop begins with other weights",
    "set the weights before: model.set_weights(weights), and build no new model inside the loop",
    threads=("keras#19341",),
)
D42 = Row(
    "D42",
    "the gradient is that of another model's weights (a copy, an average, a target network)",
    "tape.gradient(loss, model.trainable_variables), with the loss of model(x, training=True)",
    threads=("tensorflow#36694",),
)
D54 = Row(
    "D54",
    "keras.remat with dropout: another mask in the recomputation (V5)",
    "leave remat off until tfbig has its own",
    kind=LATER,
)
ROWS = (D02_INPUTS, D06, D07, D08, D09, D10, D28, D42, D43, D47, D54)
