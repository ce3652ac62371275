"""Each cause of the catalogue that one step can show, as a user writes it, and the number of it.

The numbers are computed here by hand: from the data, not from the diagnosis.
"""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tests.parity import loops
from tests.parity.loops import COLUMN, ROWS, TIME, Fault, X, dense, mse, own, with_parts

cce = keras.losses.sparse_categorical_crossentropy
SCALE = 2.0**15
BY_WEIGHTS = 1 / float(loops.WEIGHTS.astype("float64").mean())


def sgd(**options: Any) -> Any:
    return lambda: dense(optimizer=keras.optimizers.SGD(loops.RATE, **options))


def adam(**options: Any) -> Any:
    return lambda: dense(optimizer=keras.optimizers.Adam(loops.RATE, **options))


def scaling(policy: str | None = None, initial: float = SCALE) -> keras.Model:
    inner = keras.optimizers.SGD(loops.RATE)
    optimizer = keras.optimizers.LossScaleOptimizer(inner, initial_scale=initial)
    return dense(optimizer=optimizer, **({"dtype": policy} if policy else {}))


def inner(model: keras.Model, gradients: list, variables: list) -> None:
    model.optimizer.inner_optimizer.apply_gradients(zip(gradients, variables))


def inner_after_unscaling(model: keras.Model, gradients: list, variables: list) -> None:
    inner(model, [tf.cast(g, "float32") / 2.0**30 for g in gradients], variables)


def twice(model: keras.Model, gradients: list, variables: list) -> None:
    loops.descend(model, gradients, variables)
    loops.descend(model, gradients, variables)


def anew(model: keras.Model, gradients: list, variables: list) -> None:
    loops.twin(model).apply_gradients(zip(gradients, variables))


def without_none(model: keras.Model, gradients: list, variables: list) -> None:
    pairs = [(g, v) for g, v in zip(gradients, variables) if g is not None]
    if pairs:
        model.optimizer.apply_gradients(pairs)


def forgetting_constraints(model: keras.Model, gradients: list, variables: list) -> None:
    for gradient, variable in zip(gradients, variables):
        variable.assign_sub(loops.RATE * gradient)


def with_phantom(model: keras.Model, gradients: list, variables: list) -> None:
    loops.descend(model, gradients, variables)
    loops.descend(model, [tf.zeros_like(g) for g in gradients], variables)


def called_twice(model: keras.Model, x: Any) -> Any:
    model(x, training=True)
    return model(x, training=True)


def other_seeds(model: keras.Model, x: Any) -> Any:
    state = model.layers[1].seed_generator.state
    state.assign(state + keras.ops.cast([7, 0], state.dtype))
    return model(x, training=True)


def other_weights(model: keras.Model, x: Any) -> Any:
    model.layers[0].kernel.assign(model.layers[0].kernel * 0.5)
    return model(x, training=True)


def copy(model: keras.Model) -> Any:
    other = keras.models.clone_model(model)
    other.set_weights(model.get_weights())
    return loops.by_hand(call=lambda m, x: other(x), variables=lambda m: other.trainable_variables)


def frozen() -> keras.Model:
    model = dense()
    model.optimizer.build(model.trainable_variables)
    model.layers[0].trainable = False
    return model


def all_weights(model: keras.Model) -> list:
    return model.weights


def average(model: keras.Model) -> None:
    if model.optimizer.built:
        model.optimizer._update_model_variables_moving_average(model.trainable_variables)


def tokens_mean(y: Any, p: Any, w: Any) -> Any:
    mask = tf.cast(p._keras_mask, "float32")
    return tf.reduce_mean(cce(y, p, from_logits=True) * mask)


def per_sequence(y: Any, p: Any, w: Any) -> Any:
    return tf.reduce_mean(tf.reduce_sum(cce(y, p, from_logits=True), axis=1))


def one_hot_of_numbers(y: Any, p: Any, w: Any) -> Any:
    labels = tf.cast(y, "float32")[:, None]
    return -tf.reduce_mean(tf.reduce_sum(labels * tf.nn.log_softmax(p), -1))


def heads(a: float, b: float) -> Any:
    def loss(y: Any, p: Any, w: Any) -> Any:
        two = keras.losses.binary_crossentropy(y["b"], p["b"])
        return a * tf.reduce_mean((y["a"] - p["a"]) ** 2) + b * tf.reduce_mean(two)

    return loss


def smoothed(y: Any, p: Any, w: Any) -> Any:
    y = tf.one_hot(y, loops.CLASSES)
    return tf.reduce_mean(keras.losses.categorical_crossentropy(y, p, True, label_smoothing=0.2))


def in_half(value: Any) -> Any:
    return tf.cast(tf.cast(value, "bfloat16"), "float32")


def by_the_weights(y: Any, p: Any, w: Any) -> Any:
    return tf.reduce_sum((y - p)[:, 0] ** 2 * w) / tf.reduce_sum(w)


def unweighted(y: Any, p: Any, w: Any) -> Any:
    return tf.reduce_mean(cce(y, p, from_logits=True))


regression, labels, tags = (X, COLUMN), (X, loops.NUMBERS), (loops.TOKENS, loops.TAGS)
weights = (X, COLUMN, loops.WEIGHTS)
moved = np.roll(np.arange(ROWS), 1)

FAULTS = [
    Fault("D01", dense, (X, loops.FLAT), with_parts(loss=loops.broadcast),
          f"{ROWS} x {ROWS} pairs"),
    Fault("D02", dense, regression, with_parts(given=lambda x, y, w: (x, tf.gather(y, moved), w)),
          f"{ROWS} of {ROWS} predictions", name="labels"),
    Fault("D02", dense, regression, with_parts(given=lambda x, y, w: (tf.gather(x, moved), y, w)),
          f"{ROWS} of {ROWS} rows of x", name="inputs"),
    Fault("D03", loops.regular, regression, with_parts(loss=mse, add=lambda m: 0.0), "0.000"),
    Fault("D04", loops.regular, regression,
          with_parts(loss=mse, add=lambda m: 2 * loops.penalties(m)), "2.000"),
    Fault("D05", loops.sparse, regression, with_parts(loss=mse, add=lambda m: 0.0), "0.000"),
    Fault("D06", loops.norm, regression, with_parts(call=called_twice),
          f"{1 + loops.MOMENTUM} times"),
    Fault("D07", loops.dropping, regression, with_parts(call=lambda m, x: m(x)), "dropped"),
    Fault("D08", loops.norm, regression, with_parts(call=lambda m, x: m(x)), "moves by 0"),
    Fault("D09", loops.norm, regression, with_parts(after=lambda m, x: m(x, training=True)),
          f"{1 + loops.MOMENTUM} times"),
    Fault("D10", loops.dropping, regression, with_parts(call=other_seeds), "seed"),
    Fault("D11", dense, regression, with_parts(loss=loops.summed), f"{ROWS} times", ROWS),
    Fault("D13", dense, (X[:12], COLUMN[:12]), lambda m: loops.micro((4, 4, 4), (1.0,) * 3),
          "is 3 times fit's: the step has 3 micro-batches", 3),
    Fault("D14", dense, regression, lambda m: loops.micro((7, 4, 2), (1 / 3,) * 3), "7, 4, 2"),
    Fault("D15", dense, weights, with_parts(loss=mse), "without weights"),
    Fault("D16", dense, weights, with_parts(loss=by_the_weights),
          f"sample_weight) is {BY_WEIGHTS:.6g}", BY_WEIGHTS),
    Fault("D17", loops.classes, labels, with_parts(loss=unweighted), "class_weight=None",
          class_weight=loops.CLASS_WEIGHT),
    Fault("D18", loops.tagger, tags, with_parts(loss=tokens_mean),
          f"{loops.VALID} of {ROWS * TIME} places", loops.VALID / (ROWS * TIME)),
    Fault("D19", loops.tagger, tags,
          with_parts(loss=unweighted),
          f"{ROWS * TIME - loops.VALID} padded places"),
    Fault("D20", loops.tagger, tags,
          with_parts(given=lambda x, y, w: (x, tf.roll(y, 1, axis=1), w)), "shifted by 1"),
    Fault("D21", loops.classes, labels,
          with_parts(loss=lambda y, p, w: tf.reduce_mean(cce(y, p))), "from_logits=False"),
    Fault("D22", lambda: loops.classes(from_logits=False), labels,
          with_parts(loss=lambda y, p, w: tf.reduce_mean(
              tf.nn.sparse_softmax_cross_entropy_with_logits(y, p))), "second softmax"),
    Fault("D23", lambda: loops.classes(from_logits=False, scale=60.0), labels,
          with_parts(loss=lambda y, p, w: tf.reduce_mean(cce(y, tf.identity(p)))), "1e-7"),
    Fault("D24", loops.classes, labels, with_parts(loss=smoothed), "label_smoothing=0.2 "),
    Fault("D24", lambda: dense(keras.losses.Huber(delta=0.3)), regression,
          with_parts(loss=lambda y, p, w: tf.reduce_mean(keras.losses.huber(y, p))),
          "delta=1.0; the model's has 0.3", name="delta"),
    Fault("D25", scaling, regression, with_parts(scale=lambda m, loss: loss),
          f"is {SCALE:g}", 1 / SCALE),
    Fault("D26", scaling, regression, with_parts(update=inner), f"{SCALE:g} times", SCALE),
    Fault("D27", lambda: scaling("mixed_float16", 2.0**30), regression,
          with_parts(update=inner_after_unscaling), "not finite"),
    Fault("D28", dense, regression, with_parts(change=lambda g: [in_half(v) for v in g]),
          "gradients are rounded to bfloat16"),
    Fault("D28", dense, regression, with_parts(given=lambda x, y, w: (in_half(x), y, w)),
          "x rounded to bfloat16", name="inputs"),
    Fault("D28", loops.classes, labels, with_parts(loss=lambda y, p, w: tf.reduce_mean(
        cce(y, in_half(p), from_logits=True))), "outputs rounded to bfloat16", name="outputs"),
    Fault("D29", sgd(clipnorm=0.02), regression, own(clipnorm=None), "0.02"),
    Fault("D29", dense, regression,
          with_parts(change=lambda g: [tf.clip_by_norm(v, 0.02) for v in g]), "0.02", name="loop"),
    Fault("D30", sgd(global_clipnorm=0.05), regression, own(global_clipnorm=None), "0.05"),
    Fault("D30", dense, regression,
          with_parts(change=lambda g: tf.clip_by_global_norm(g, 0.05)[0]), "0.05", name="loop"),
    Fault("D31", sgd(clipvalue=0.01), regression, own(clipvalue=None), "0.01"),
    Fault("D31", dense, regression,
          with_parts(change=lambda g: [tf.clip_by_value(v, -0.01, 0.01) for v in g]), "0.01",
          name="loop"),
    Fault("D33", sgd(weight_decay=0.2), regression, own(weight_decay=None), "0.2 in the model's"),
    Fault("D34", lambda: dense(kernel_constraint=keras.constraints.MaxNorm(0.3)), regression,
          with_parts(update=forgetting_constraints), "violates"),
    Fault("D35", dense, regression, own(learning_rate=0.01), "0.01 in the loop, and 0.05"),
    Fault("D35", dense, regression, with_parts(update=twice), "2 times", name="twice"),
    Fault("D36", adam(), regression, with_parts(update=anew), "in step 2"),
    Fault("D37", adam(), regression, own(epsilon=1e-3), "epsilon is 0.001"),
    Fault("D37", adam(), regression,
          lambda m: loops.with_optimizer(keras.optimizers.SGD(loops.RATE)), "SGD", name="kind"),
    Fault("D38", dense, regression, with_parts(variables=lambda m: m.trainable_variables[2:]),
          "2 of 6 variables"),
    Fault("D39", dense, regression, with_parts(
        loss=mse, call=lambda m, x: tf.constant(m.predict_on_batch(x)), update=without_none),
          "None"),
    Fault("D40", frozen, regression, with_parts(variables=all_weights), "2 variables"),
    Fault("D41", dense, regression, with_parts(change=lambda g: [g[0], g[3], g[2], g[1], *g[4:]]),
          "2 gradients"),
    Fault("D42", dense, regression, copy, "none of which the model trains"),
    Fault("D43", dense, regression, with_parts(call=other_weights), "differ"),
    Fault("D47", dense, regression, with_parts(given=lambda x, y, w: (x / 255, y, w)),
          f"{1 / 255:.6g} x"),
    Fault("D51", loops.regular, regression,
          with_parts(loss=mse, logs=lambda whole, data: {"loss": data}), "reports"),
    Fault("D55", lambda: dense(["mse", "mae"]), regression,
          with_parts(loss=lambda y, p, w: tf.reduce_mean((y - p) ** 2 + abs(y - p))), "2 losses"),
    Fault("D57", loops.two_heads, (X, loops.TWO), with_parts(loss=heads(1.0, 1.0)),
          "1, 1 are the weights of the outputs in the loop, 0.3, 1.7 in the model"),
    Fault("D57", loops.two_heads, (X, loops.TWO), with_parts(loss=heads(1.7, 0.3)),
          "1.7, 0.3 are", name="swapped"),
    Fault("D58", loops.penalised, regression, with_parts(loss=mse), "Penalised.compute_loss"),
    Fault("D59", lambda: loops.tagger(keras.optimizers.Adam(loops.RATE)), tags,
          with_parts(change=lambda g: [tf.convert_to_tensor(v) for v in g]), "embeddings"),
    Fault("D60", sgd(use_ema=True, ema_momentum=0.7), (X[:12], COLUMN[:12]),
          lambda m: loops.micro((4, 4, 4), (1 / 3,) * 3, average), "times as far"),
    Fault("D61", lambda: loops.tagger(mask=False), tags, with_parts(loss=per_sequence),
          f"is {TIME} times fit's", TIME),
    Fault("D64", loops.classes, labels, with_parts(loss=one_hot_of_numbers), "class number"),
    Fault("D66", sgd(weight_decay=0.2), regression, with_parts(update=with_phantom), "all zero"),
    Fault("D67", dense, regression,
          with_parts(loss=lambda y, p, w: tf.reduce_mean(abs(y - p))), "mean_absolute_error"),
]  # fmt: skip
