"""Each cause of the catalogue as a small change of the correct loop, as a user would write it.

A fault maps a `Loop` to a `Loop`; two faults that replace different parts compose. What a fault
needs of the user's setup, and where it cannot show, stands in its decorator.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from faults.loop import Loop, Result, one_pass
from faults.networks import CLASSES, Head, Setup

Reason = str


@dataclasses.dataclass(frozen=True)
class Fault:
    """One injection.

    Attributes:
        change: what it does to the loop.
        needs: fields of the setup; a function of the setup where they depend on it.
        excluded: the reason why it cannot show in a setup, or an empty string.
        mode: whether it is seen in a step or only over epochs.
        structural: it is about the order of the data, which chance makes differ anyway.
    """

    id: str
    change: Callable[[Loop], Loop]
    needs: Mapping[str, Any] | Callable[[Setup], Mapping[str, Any]]
    excluded: Callable[[Setup], Reason]
    mode: str = "step"
    structural: bool = False

    def setup(self, setup: Setup) -> Setup:
        return dataclasses.replace(setup, **self.wants(setup))

    def wants(self, setup: Setup) -> dict[str, Any]:
        wants = dict(self.needs(setup) if callable(self.needs) else self.needs)
        if self.mode == "train":  # the function of several epochs takes no weights
            wants["weights"] = ""
        return wants


FAULTS: dict[str, Fault] = {}
# Causes without an injection, and why.
NOT_ATTEMPTED = {
    "D12": "needs several replicas",
    "D32": "needs several replicas",
    "D63": "needs several replicas",
    "D52": "no fault: a different order of the same sums; stands among the correct loops (XLA)",
    "D53": "needs cuDNN",
    "D54": "needs keras.remat in the network; gradient wrong in fit and loop alike",
    "D56": "nothing in the compiled model tells that its user meant another loss",
    "D62": "needs a teacher: fit on the same model has no distillation",
    "D65": "needs two optimizers: fit on the same model has no GAN step",
}


def fault(
    id: str,
    excluded: Callable[[Setup], Reason] = lambda setup: "",
    mode: str = "step",
    structural: bool = False,
    depends: Callable[[Setup], Mapping[str, Any]] | None = None,
    **needs: Any,
) -> Callable:
    def register(change: Callable[[Loop], Loop]) -> Callable[[Loop], Loop]:
        FAULTS[id] = Fault(id, change, depends or needs, excluded, mode, structural)
        return change

    return register


def only(holds: Callable[[Setup], bool], reason: Reason) -> Callable[[Setup], Reason]:
    return lambda setup: "" if holds(setup) else reason


def variant(setup: Setup, n: int) -> int:
    """Which of n ways to make the same mistake: by seed and network."""
    return (setup.seed + len(setup.network) + len(setup.loss)) % n


masked = only(lambda s: s.masked, "Keras masks no loss here")
tokens_only = only(lambda s: s.per_token, "one output for an example: no tokens to count")
kinds = {
    k: only(lambda s, k=k: any(h.kind == k for h in s.heads), f"no {k} loss")
    for k in ("mse", "bce", "sparse")
}
probabilities = only(lambda s: s.loss != "mse", "no probabilities: a regression")
no_batch_norm = only(
    lambda s: not s.batch_norm, "parts of the batch have other BatchNorm statistics: a cause more"
)


# --- data and labels


@fault(
    "D01",
    only(
        lambda s: not s.per_token and any(h.kind != "sparse" for h in s.heads),
        "needs outputs (n, 1); (n, T) against (n, T, 1) does not broadcast",
    ),
    flat_y=True,
    weights="",
)
def _broadcast(loop: Loop) -> Loop:
    def by_hand(head: Head, y: tf.Tensor, p: tf.Tensor) -> tf.Tensor:
        if head.kind == "mse":
            return tf.square(y - p)
        if head.kind == "bce":
            p = tf.sigmoid(p) if head.logits else p
            p = tf.clip_by_value(p, 1e-7, 1 - 1e-7)
            return -(y * tf.math.log(p) + (1 - y) * tf.math.log(1 - p))
        return loop.elementwise(head, y, p)

    return loop.changed(elementwise=by_hand)


@fault("D02")
def _misaligned(loop: Loop) -> Loop:
    def prepare(x: Any, y: Any, w: Any) -> tuple:
        rows = len(keras.tree.flatten(y)[0])
        order = np.random.default_rng(3).permutation(rows)
        return x, keras.tree.map_structure(lambda v: tf.gather(v, order), y), w

    return loop.changed(prepare=prepare)


@fault("D15", weights="sample")
def _sample_weight_ignored(loop: Loop) -> Loop:
    return loop.changed(prepare=lambda x, y, w: (x, y, None))


@fault(
    "D17",
    only(
        lambda s: len(s.heads) == 1 and not s.per_token and s.loss != "mse",
        "Keras takes class_weight for one head with one class per example",
    ),
    weights="class",
)
def _class_weight_ignored(loop: Loop) -> Loop:
    return loop.changed(prepare=lambda x, y, w: (x, y, None))


@fault("D20", tokens_only)
def _shifted(loop: Loop) -> Loop:
    return loop.changed(prepare=lambda x, y, w: (x, tf.roll(y, 1, axis=1), w))


@fault("D47", only(lambda s: not s.tokens, "token ids are not scaled"))
def _scaled_inputs(loop: Loop) -> Loop:
    factor = (1 / 255, 2.0)[variant(loop.setup, 2)]
    scale = lambda x: keras.tree.map_structure(lambda v: v * factor, x)  # noqa: E731
    return loop.changed(prepare=lambda x, y, w: (scale(x), y, w))


@fault("D64", kinds["sparse"], weights="")
def _integer_labels(loop: Loop) -> Loop:
    def cross_entropy(head: Head, y: tf.Tensor, p: tf.Tensor) -> tf.Tensor:
        if head.kind != "sparse":
            return loop.elementwise(head, y, p)
        log_p = tf.math.log(tf.nn.softmax(p) if head.logits else p)
        if len(y.shape) == 1 and variant(loop.setup, 2):
            return -tf.gather(log_p, y, axis=1)  # (n, n)
        return -tf.reduce_sum(tf.cast(y, tf.float32)[..., None] * log_p, -1)  # taken for one-hot

    return loop.changed(elementwise=cross_entropy)


# --- forward


@fault("D06", dropout=True)
def _called_twice(loop: Loop) -> Loop:
    def forward(model: keras.Model, x: Any) -> Any:
        model(x, training=True)  # to look at the shapes
        return model(x, training=True)

    return loop.changed(forward=forward)


@fault("D07", only(lambda s: not s.batch_norm, "with BatchNorm it is D08 as well"), dropout=True)
def _no_dropout(loop: Loop) -> Loop:
    return loop.changed(forward=lambda model, x: model(x))


@fault("D08", only(lambda s: s.batch_norm, "no BatchNorm"), dropout=False)
def _inference_statistics(loop: Loop) -> Loop:
    return loop.changed(forward=lambda model, x: model(x))


@fault("D09", only(lambda s: s.batch_norm, "no BatchNorm"), dropout=False)
def _statistics_twice(loop: Loop) -> Loop:
    def predict_again(loop: Loop, model: keras.Model, x: Any) -> None:
        model(x, training=True)  # for the metrics

    return loop.changed(after=predict_again)


@fault("D10", dropout=True)
def _other_mask(loop: Loop) -> Loop:
    def forward(model: keras.Model, x: Any) -> Any:
        for layer in model.layers:
            if isinstance(layer, keras.layers.Dropout):
                state = layer.seed_generator.state
                state.assign(state + keras.ops.cast([7, 0], state.dtype))
        return model(x, training=True)

    return loop.changed(forward=forward)


@fault("D28", optimizer="sgd")
def _other_precision(loop: Loop) -> Loop:
    policy = ("mixed_bfloat16", "mixed_float16")[variant(loop.setup, 2)]

    def forward(model: keras.Model, x: Any) -> Any:
        layers = [v for v in model._flatten_layers(include_self=False) if v.weights]
        before = [layer.dtype_policy for layer in layers]
        for layer in layers:
            if not layer.name.startswith("output"):
                layer.dtype_policy = policy
        try:
            y_pred = model(x, training=True)
        finally:
            for layer, old in zip(layers, before, strict=True):
                layer.dtype_policy = old
        return keras.tree.map_structure(lambda p: tf.cast(p, tf.float32), y_pred)

    return loop.changed(forward=forward)


@fault(
    "D39",
    only(lambda s: not s.batch_norm, "predict is also without training: D08"),
    dropout=False,
    add_loss=False,
)
def _tape_cut(loop: Loop) -> Loop:
    def forward(model: keras.Model, x: Any) -> Any:
        return keras.tree.map_structure(tf.constant, model.predict_on_batch(x))

    def apply(loop: Loop, grads: list, variables: list) -> None:
        pairs = [(g, v) for g, v in zip(grads, variables, strict=True) if g is not None]
        if pairs:
            loop.optimizer.apply_gradients(pairs)

    return loop.changed(forward=forward, apply=apply)


@fault("D42", dropout=False)
def _gradient_of_a_copy(loop: Loop) -> Loop:
    copy = keras.models.clone_model(loop.model)
    copy.set_weights(loop.model.get_weights())

    def compute(loop: Loop, model: keras.Model, x: Any, y: Any, w: Any) -> Result:
        return one_pass(loop, copy, x, y, w)

    return loop.changed(compute=compute)


@fault("D43")
def _other_weights(loop: Loop) -> Loop:
    theirs = loop.model.trainable_variables[0].numpy()

    def forward(model: keras.Model, x: Any) -> Any:
        if np.array_equal(model.trainable_variables[0], theirs):  # my own initial weights
            rng = np.random.default_rng(11)
            for v in model.trainable_variables:
                v.assign(rng.normal(scale=0.3, size=v.shape))
        return model(x, training=True)

    return loop.changed(forward=forward)


# --- loss


@fault("D11")
def _sum(loop: Loop) -> Loop:
    def total(values: tf.Tensor, w: Any, mask: Any) -> tf.Tensor:
        for factor in (w, mask):
            values = values if factor is None else values * factor
        return tf.reduce_sum(values)

    return loop.changed(reduce=total)


@fault("D16", weights="sample")
def _by_sum_of_weights(loop: Loop) -> Loop:
    def mean(values: tf.Tensor, w: Any, mask: Any) -> tf.Tensor:
        w = w if mask is None else w * mask
        return tf.reduce_sum(values * w) / tf.reduce_sum(w)

    return loop.changed(reduce=mean)


@fault("D18", masked, padding=True)
def _mean_with_zeros(loop: Loop) -> Loop:
    def mean(values: tf.Tensor, w: Any, mask: Any) -> tf.Tensor:
        values = values * mask
        return tf.reduce_mean(values if w is None else values * w)

    return loop.changed(reduce=mean)


@fault("D19", masked, padding=True)
def _padding_counted(loop: Loop) -> Loop:
    return loop.changed(mask=lambda loop, x: None)


@fault("D61", tokens_only, depends=lambda s: {"padding": bool(variant(s, 2))})
def _per_sequence(loop: Loop) -> Loop:
    def mean(values: tf.Tensor, w: Any, mask: Any) -> tf.Tensor:
        for factor in (w, mask):
            values = values if factor is None else values * factor
        return tf.reduce_mean(tf.reduce_sum(values, axis=1))

    return loop.changed(reduce=mean)


@fault("D21", probabilities, logits=True)
def _logits_as_probabilities(loop: Loop) -> Loop:
    def loss(head: Head, y: tf.Tensor, p: tf.Tensor) -> tf.Tensor:
        return loop.elementwise(dataclasses.replace(head, logits=False), y, p)

    return loop.changed(elementwise=loss)


@fault("D22", probabilities, logits=False)
def _softmax_twice(loop: Loop) -> Loop:
    # By TensorFlow's functions: Keras's own warn, and find the logits behind the softmax.
    def loss(head: Head, y: tf.Tensor, p: tf.Tensor) -> tf.Tensor:
        if head.kind == "sparse":
            return tf.nn.sparse_softmax_cross_entropy_with_logits(y, p)
        if head.kind == "bce":
            y = tf.reshape(y, tf.shape(p))
            return tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(y, p), -1)
        return loop.elementwise(head, y, p)

    return loop.changed(elementwise=loss)


@fault("D23", probabilities, logits=False, confident=True)
def _logits_lost(loop: Loop) -> Loop:
    def loss(head: Head, y: tf.Tensor, p: tf.Tensor) -> tf.Tensor:
        return loop.elementwise(head, y, tf.identity(p))

    return loop.changed(elementwise=loss)


@fault("D24", probabilities, depends=lambda s: {"smoothing": 0.0 if s.seed % 2 else 0.2})
def _label_smoothing(loop: Loop) -> Loop:
    """The loop smooths or, where the compiled loss does, it does not; of ints only the loop can."""

    def other(head: Head, y: tf.Tensor, p: tf.Tensor) -> tf.Tensor:
        if head.kind == "sparse":
            y = tf.one_hot(y, CLASSES)
            return keras.losses.categorical_crossentropy(y, p, head.logits, label_smoothing=0.2)
        smoothing = 0.0 if head.smoothing else 0.2
        return loop.elementwise(dataclasses.replace(head, smoothing=smoothing), y, p)

    return loop.changed(elementwise=other)


@fault(
    "D55",
    only(lambda s: s.loss in ("mse", "bce"), "a second loss needs one output, and no class ids"),
    two_losses=True,
)
def _both_losses(loop: Loop) -> Loop:
    def both(head: Head, y: tf.Tensor, p: tf.Tensor) -> tf.Tensor:
        return loop.elementwise(head, y, p) + keras.losses.mean_absolute_error(y, p)

    return loop.changed(elementwise=both)


@fault("D57", only(lambda s: len(s.heads) > 1, "one head"))
def _loss_weights(loop: Loop) -> Loop:
    if variant(loop.setup, 2):
        return loop.changed(head_weight=lambda head: 1.0)
    other = {head.name: head.weight for head in loop.setup.heads[::-1]}
    swapped = dict(zip(other, reversed(other.values()), strict=True))
    return loop.changed(head_weight=lambda head: swapped[head.name])
