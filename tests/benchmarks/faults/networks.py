"""Five small networks with three losses each, compiled, and data for them.

Rows, length, features, classes, vocabulary and micro-steps differ pairwise, as do their ratios, so
that no wrong answer is right by chance.
"""

import dataclasses
from typing import Any

import keras
import numpy as np
import tensorflow as tf

layers = keras.layers

BATCH, LENGTH, FEATURES, CLASSES, VOCABULARY, MICRO = 21, 11, 13, 5, 17, 3
ROWS = 53  # two whole batches and one of 11
# Repeats after 7 rows, so that every micro-batch of 7 holds equally many tokens.
LENGTHS = (11, 9, 6, 8, 10, 4, 5)
NETWORKS = ("dense", "cnn", "lstm", "transformer", "two_heads")
LOSSES = {name: ("mse", "bce", "sparse") for name in NETWORKS[:4]}
LOSSES["two_heads"] = ("mse+bce", "bce+sparse", "sparse+mse")
LOSS_WEIGHTS = (0.3, 1.7)
RATE = 0.05


@dataclasses.dataclass(frozen=True)
class Head:
    """One output: what it predicts, and by which loss it is judged."""

    name: str
    kind: str  # mse, bce, sparse
    logits: bool
    weight: float = 1.0
    smoothing: float = 0.0  # of bce

    @property
    def units(self) -> int:
        return CLASSES if self.kind == "sparse" else 1

    @property
    def activation(self) -> str | None:
        if self.kind == "mse" or self.logits:
            return None
        return "softmax" if self.kind == "sparse" else "sigmoid"

    def loss(self) -> Any:
        if self.kind == "bce":
            return keras.losses.BinaryCrossentropy(self.logits, label_smoothing=self.smoothing)
        if self.kind == "sparse":
            return keras.losses.SparseCategoricalCrossentropy(from_logits=self.logits)
        return "mean_squared_error"


@dataclasses.dataclass(frozen=True)
class Setup:
    """What the user has: the network, how it is compiled, the data. Faults ask for parts of it."""

    network: str
    loss: str
    seed: int
    optimizer: str = "sgd"  # sgd, momentum, adam, rmsprop
    options: tuple[tuple[str, Any], ...] = ()  # further arguments of the optimizer
    schedule: bool = False
    loss_scale: float = 0.0  # of a LossScaleOptimizer around it
    policy: str = "float32"
    dropout: bool = False
    regularizer: str = ""  # l1, l2
    add_loss: bool = False
    constraint: bool = False
    penalty: bool = False  # compute_loss adds a gradient penalty
    weights: str = ""  # sample, class
    logits: bool = True
    smoothing: float = 0.0
    two_losses: bool = False  # a list of two losses for the one output
    flat_y: bool = False  # targets (n,) for outputs (n, 1)
    confident: bool = False  # outputs far from zero
    frozen: bool = False  # a layer is frozen after compile
    padding: bool = True
    shuffle: bool = False
    unseeded: bool = False  # TensorFlow's global seed is not set when fit runs
    jit_compile: bool = False
    custom_step: bool = False  # the model has a train_step of the user's

    @property
    def heads(self) -> tuple[Head, ...]:
        if self.network == "two_heads":
            kinds = zip("ab", self.loss.split("+"), LOSS_WEIGHTS, strict=True)
            return tuple(Head(n, kind, self.logits, w, self.smoothing) for n, kind, w in kinds)
        return (Head("", self.loss, self.logits, smoothing=self.smoothing),)

    @property
    def tokens(self) -> bool:
        """Whether the inputs are token ids."""
        return self.network in ("lstm", "transformer")

    @property
    def per_token(self) -> bool:
        """Whether there is an output for every token."""
        return self.network == "lstm" or (self.network == "transformer" and self.loss == "sparse")

    @property
    def masked(self) -> bool:
        """Whether the outputs carry a mask, by which Keras averages the loss.

        Those of the transformer do not: `MultiHeadAttention` takes the mask off the tensor it is
        given, and the sum around it then has none (Keras 3.15.1).
        """
        return self.network == "lstm"

    @property
    def batch_norm(self) -> bool:
        return self.network == "cnn"


def draw(network: str, loss: str, seed: int) -> Setup:
    """A setup in which all that no fault asks for is left to chance."""
    rng = np.random.default_rng([seed, NETWORKS.index(network), LOSSES[network].index(loss)])
    return Setup(
        network,
        loss,
        seed,
        optimizer=str(rng.choice(["sgd", "momentum", "adam", "rmsprop"])),
        dropout=bool(rng.random() < 0.5),
        regularizer=str(rng.choice(["", "l2", "l1"])),
        add_loss=bool(rng.random() < 0.3),
        weights="sample" if rng.random() < 0.3 else "",
        logits=bool(rng.random() < 0.5),
    )


@keras.saving.register_keras_serializable("faults")
class Sparse(layers.Layer):
    """Adds a loss on what passes, a mean over the examples."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, x: Any) -> Any:
        self.add_loss(0.3 * keras.ops.mean(keras.ops.square(keras.ops.cast(x, "float32"))))
        return x


@keras.saving.register_keras_serializable("faults")
class Penalised(keras.Model):
    """Adds a penalty on the slope of the output in the inputs."""

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True) -> Any:
        loss = super().compute_loss(x, y, y_pred, sample_weight, training=training)
        return loss + slope(self, x)


@keras.saving.register_keras_serializable("faults")
class Stepped(keras.Model):
    """With a `train_step` of the user's own, and right."""

    def train_step(self, data: Any) -> dict:
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        with tf.GradientTape() as tape:
            y_pred = self(x, training=True)
            loss = self.compute_loss(x, y, y_pred, sample_weight)
        gradients = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply(gradients, self.trainable_variables)
        for metric in self.metrics:
            if metric.name == "loss":
                metric.update_state(loss, len(keras.tree.flatten(y)[0]))
        return {m.name: m.result() for m in self.metrics if m.name == "loss"}


def slope(model: keras.Model, x: Any) -> Any:
    """Mean square of the outputs' gradient in the inputs."""
    flat = [tf.convert_to_tensor(v) for v in keras.tree.flatten(x)]
    with tf.GradientTape() as tape:
        tape.watch(flat)
        outputs = model(keras.tree.pack_sequence_as(x, flat), training=False)
        total = tf.add_n([tf.reduce_sum(o) for o in keras.tree.flatten(outputs)])
    slopes = tape.gradient(total, flat)
    return 0.1 * tf.add_n([tf.reduce_mean(tf.square(s)) for s in slopes])


def _body(setup: Setup) -> tuple[Any, Any]:
    """Inputs of the network and its last hidden layer."""
    regularizer = {"l1": keras.regularizers.L1(0.01), "l2": keras.regularizers.L2(0.03), "": None}
    regular = {
        "kernel_regularizer": regularizer[setup.regularizer],
        "kernel_constraint": keras.constraints.MaxNorm(0.6) if setup.constraint else None,
    }
    if setup.network == "dense":
        inputs = keras.Input((FEATURES,))
        h = layers.Dense(7, "tanh", **regular)(inputs)
        h = layers.Dense(7, "tanh")(h)
    elif setup.network == "cnn":
        inputs = keras.Input((6, 6, 2))
        h = layers.Conv2D(4, 3, **regular)(inputs)
        h = layers.BatchNormalization(momentum=0.8)(h)
        h = layers.ReLU()(h)
        h = layers.Conv2D(4, 2, activation="tanh")(h)
        h = layers.Flatten()(h)
    elif setup.network == "lstm":
        inputs = keras.Input((LENGTH,), dtype="int32")
        h = layers.Embedding(VOCABULARY, 4, mask_zero=True)(inputs)
        h = layers.LSTM(6, return_sequences=True, **regular)(h)
        h = layers.Dense(6, "tanh")(h)
        h = layers.Dense(6, "tanh")(h)
    elif setup.network == "transformer":
        inputs = keras.Input((LENGTH,), dtype="int32")
        h = layers.Embedding(VOCABULARY, 8, mask_zero=True)(inputs)
        attended = layers.MultiHeadAttention(2, 4)(h, h, use_causal_mask=True)
        h = layers.LayerNormalization()(layers.Add()([h, attended]))
        fed = layers.Dense(8)(layers.Dense(10, "gelu", **regular)(h))
        h = layers.LayerNormalization()(layers.Add()([h, fed]))
        if not setup.per_token:
            h = layers.GlobalAveragePooling1D()(h)
    else:
        inputs = {"left": keras.Input((8,), name="left"), "right": keras.Input((5,), name="right")}
        h = layers.Concatenate()([inputs["left"], inputs["right"]])
        h = layers.Dense(7, "tanh", **regular)(h)
        h = layers.Dense(7, "tanh")(h)
    if setup.dropout:
        h = layers.Dropout(0.3, seed=setup.seed + 5)(h)
    if setup.add_loss:
        h = Sparse()(h)
    return inputs, h


def _optimizer(setup: Setup) -> keras.optimizers.Optimizer:
    rate: Any = RATE
    if setup.schedule:
        rate = keras.optimizers.schedules.ExponentialDecay(RATE, 2, 0.4)
    options = dict(setup.options)
    if setup.optimizer == "momentum":
        made = keras.optimizers.SGD(rate, momentum=0.9, **options)
    else:
        kinds = {"sgd": "SGD", "adam": "Adam", "rmsprop": "RMSprop"}
        made = getattr(keras.optimizers, kinds[setup.optimizer])(rate, **options)
    if setup.loss_scale:
        made = keras.optimizers.LossScaleOptimizer(made, initial_scale=setup.loss_scale)
    return made


def build(setup: Setup) -> keras.Model:
    """A fresh compiled model: equal setups make equal weights."""
    keras.utils.set_random_seed(setup.seed)
    keras.config.set_dtype_policy(setup.policy)
    try:
        inputs, h = _body(setup)
        outputs = {
            head.name: layers.Dense(
                head.units,
                head.activation,
                dtype="float32",
                name=f"output_{head.name}" if head.name else "output",
                kernel_initializer=keras.initializers.RandomNormal(seed=setup.seed + 11),
            )(h)
            for head in setup.heads
        }
        kind = Penalised if setup.penalty else Stepped if setup.custom_step else keras.Model
        model = kind(inputs, outputs if len(outputs) > 1 else next(iter(outputs.values())))
    finally:
        keras.config.set_dtype_policy("float32")
    scale = 200.0 if setup.confident else 8.0
    for head in setup.heads:  # so that gradients of the layers below are not small
        kernel = model.get_layer(f"output_{head.name}" if head.name else "output").kernel
        kernel.assign(kernel * scale)
    if setup.constraint:
        for v in model.trainable_variables:
            if v.constraint is not None:
                v.assign(v.constraint(v))
    losses = {head.name: head.loss() for head in setup.heads}
    loss: Any = losses if len(losses) > 1 else next(iter(losses.values()))
    if setup.two_losses:
        loss = [loss, "mean_absolute_error"]
    weights = {head.name: head.weight for head in setup.heads} if len(losses) > 1 else None
    model.compile(
        _optimizer(setup), loss, loss_weights=weights, jit_compile=setup.jit_compile or "auto"
    )
    if setup.frozen:
        model.layers[2 if setup.network != "two_heads" else 4].trainable = False
    return model


@dataclasses.dataclass(frozen=True)
class Data:
    """What `fit` takes."""

    x: Any
    y: Any
    sample_weight: Any = None
    class_weight: Any = None


def _targets(head: Head, signal: np.ndarray, setup: Setup) -> np.ndarray:
    """Targets of one head from a signal of shape (n,) or (n, length)."""
    if head.kind == "sparse":
        return np.digitize(signal, [-1.0, -0.4, 0.3, 1.1]).astype("int32")
    y = signal * 1.3 + 0.4 if head.kind == "mse" else (signal > 0.3)
    y = y.astype("float32")
    return y if setup.flat_y and signal.ndim == 1 else y[..., None]


def data(setup: Setup, rows: int = BATCH) -> Data:
    """Data of which a part can be learnt."""
    rng = np.random.default_rng(setup.seed + 100)
    x: Any
    if setup.tokens:
        x = rng.integers(1, VOCABULARY, size=(rows, LENGTH)).astype("int32")
        if setup.padding:
            for i in range(rows):
                x[i, LENGTHS[i % len(LENGTHS)] :] = 0
        signal = (x - VOCABULARY / 2) / 5 if setup.per_token else (x[:, 0] - VOCABULARY / 2) / 5
    elif setup.network == "cnn":
        x = rng.normal(size=(rows, 6, 6, 2)).astype("float32")
        signal = x.mean((1, 2, 3)) * 8
    else:
        x = rng.normal(size=(rows, FEATURES)).astype("float32")
        signal = x[:, 0] - 0.5 * x[:, 1]
    signal = signal + 0.4 * rng.normal(size=signal.shape)
    if setup.network == "two_heads":
        x = {"left": x[:, :8], "right": x[:, 8:]}
    ys = {
        head.name: _targets(head, signal * (1 - 2 * i), setup) for i, head in enumerate(setup.heads)
    }
    y = ys if len(ys) > 1 else ys[""]
    if setup.weights == "sample":
        shape = signal.shape if setup.per_token else (rows,)
        return Data(x, y, rng.uniform(0.1, 1.1, size=shape).astype("float32"))
    if setup.weights == "class":
        return Data(x, y, None, {c: 0.4 + 0.7 * c for c in range(setup.heads[0].units + 1)})
    return Data(x, y)


def batch_weights(setup: Setup, given: Data) -> Any:
    """The weights as `train_step` sees them: with class weights, and once for every head."""
    w = given.sample_weight
    if given.class_weight is not None:
        labels = np.asarray(given.y).reshape(-1).round().astype(int)
        w = np.array([given.class_weight[c] for c in labels], "float32")
    if w is not None and len(setup.heads) > 1:
        return {head.name: w for head in setup.heads}
    return w
