"""Every network and technique once: how it is made, its data, and which laws do not hold for it.

A public class of `tfbig.models` or `tfbig.training` that stands in no case fails the build.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from tests.conformance import transformers
from tfbig import models
from tfbig.models import NeuralNetwork
from tfbig.training import (
    Accumulation,
    LabelSmoothing,
    Learner,
    NoisePrediction,
    RuledLearner,
    Supervised,
)

layers = keras.layers
ROWS = 22  # batches of 8, 8 and 6


@dataclasses.dataclass(frozen=True)
class Case:
    """One network, compiled, and data for it.

    Attributes:
        build: a fresh compiled model; takes what else `compile` is to be given.
        data: `(x, y)`.
        covers: the public classes that this case stands for.
        exempt: law -> the reason why it does not apply.
        big: whether it takes long to trace, so that some laws run in the full tier only.
    """

    name: str
    build: Callable[..., keras.Model]
    data: Callable[[], tuple[Any, Any]]
    covers: tuple[type, ...] = ()
    exempt: Mapping[str, str] = dataclasses.field(default_factory=dict)
    big: bool = False


def _rng() -> np.random.Generator:
    return np.random.default_rng(7)


def _binary(*shape: int) -> tuple[np.ndarray, np.ndarray]:
    x = _rng().normal(size=(ROWS, *shape)).astype("float32")
    return x, (x.reshape(ROWS, -1)[:, :1] > 0).astype("float32")


def _tokens() -> tuple[np.ndarray, np.ndarray]:
    x = _rng().integers(1, 12, size=(ROWS, 6))
    x[:, 4:] = 0  # padding
    x[: ROWS // 2, 3] = 0
    return x, (x[:, :1] > 5).astype("float32")


def _compiled(model: keras.Model, loss: Any = "binary_crossentropy", **options: Any) -> keras.Model:
    options = {"optimizer": "adam", "metrics": ["accuracy"], **options}
    model.compile(loss=loss, **options)
    return model


def _neural_network(**options: Any) -> keras.Model:
    return _compiled(NeuralNetwork(), **options)


def _classes(**options: Any) -> keras.Model:
    network = NeuralNetwork((7,), 3, output_activation="softmax")
    return _compiled(network, "sparse_categorical_crossentropy", **options)


def _regression(**options: Any) -> keras.Model:
    return _compiled(
        NeuralNetwork((6, 5, 4), 2, "tanh", "linear"), "mse", **options, metrics=["mae"]
    )


def _label_smoothing(**options: Any) -> keras.Model:
    objective = LabelSmoothing(Supervised("binary_crossentropy"), 0.1)
    return _compiled(Learner(NeuralNetwork(), objective), None, **options)


def _accumulation(**options: Any) -> keras.Model:
    objective = Supervised("binary_crossentropy")
    return _compiled(RuledLearner(NeuralNetwork(), objective, Accumulation(3)), None, **options)


@keras.saving.register_keras_serializable("tests")
class Denoiser(keras.Model):
    """Predicts noise from `{"x", "signal"}`, with dropout, so that seeds count."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.join = layers.Concatenate()
        self.dropout = layers.Dropout(0.2, seed=3)
        self.network = NeuralNetwork((9,), 5, output_activation="linear")

    def build(self, input_shape: Any) -> None:
        self.network.build((None, 6))

    def call(self, inputs: Any, training: bool = False) -> Any:
        if not isinstance(inputs, dict):
            inputs = {"x": inputs, "signal": keras.ops.ones_like(inputs[..., :1])}
        joined = self.join([inputs["x"], inputs["signal"]])
        return self.network(self.dropout(joined, training=training))


def _noise_prediction(**options: Any) -> keras.Model:
    options["metrics"] = None
    return _compiled(Learner(Denoiser(), NoisePrediction(seed=5)), None, **options)


def _cnn(**options: Any) -> keras.Model:
    model = keras.Sequential(
        [
            layers.Conv2D(4, 3),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.Dropout(0.3),
            layers.Flatten(),
            layers.Dense(1, "sigmoid"),
        ]
    )
    return _compiled(model, **options)


def _lstm(**options: Any) -> keras.Model:
    model = keras.Sequential(
        [layers.Embedding(12, 4, mask_zero=True), layers.LSTM(5), layers.Dense(1, "sigmoid")]
    )
    return _compiled(model, **options)


def _attention(**options: Any) -> keras.Model:
    tokens = keras.Input((6, 5))
    h = layers.MultiHeadAttention(2, 3, dropout=0.1)(tokens, tokens)
    h = layers.LayerNormalization()(layers.Add()([h, tokens]))
    outputs = layers.Dense(1, "sigmoid")(layers.GlobalAveragePooling1D()(h))
    return _compiled(keras.Model(tokens, outputs), **options)


def _two_heads(**options: Any) -> keras.Model:
    left, right = keras.Input((4,), name="left"), keras.Input((3,), name="right")
    h = layers.Dense(6, "relu")(layers.Concatenate()([left, right]))
    outputs = {"a": layers.Dense(1, name="a")(h), "b": layers.Dense(1, "sigmoid", name="b")(h)}
    options["metrics"] = {"a": ["mae"], "b": ["accuracy"]}
    return _compiled(
        keras.Model({"left": left, "right": right}, outputs),
        {"a": "mse", "b": "binary_crossentropy"},
        loss_weights={"a": 0.3, "b": 1.0},
        **options,
    )


def _two_heads_data() -> tuple[dict, dict]:
    x, y = _binary(7)
    return {"left": x[:, :4], "right": x[:, 4:]}, {"a": x[:, :1] * 2, "b": y}


@keras.saving.register_keras_serializable("tests")
class Sparse(keras.layers.Layer):
    """Adds a loss on what passes."""

    def call(self, x: Any) -> Any:
        self.add_loss(0.01 * keras.ops.mean(keras.ops.abs(x)))
        return x


def _add_loss(**options: Any) -> keras.Model:
    return _compiled(
        keras.Sequential([layers.Dense(5, "relu"), Sparse(), layers.Dense(1, "sigmoid")]), **options
    )


def _regularized(**options: Any) -> keras.Model:
    model = keras.Sequential(
        [
            layers.Dense(5, "relu", kernel_regularizer="l1l2", kernel_constraint="non_neg"),
            layers.Dense(1, "sigmoid", activity_regularizer="l2", bias_constraint="max_norm"),
        ]
    )
    return _compiled(model, **options)


def _frozen(**options: Any) -> keras.Model:
    model = keras.Sequential(
        [layers.Dense(5, "relu"), layers.BatchNormalization(), layers.Dense(1, "sigmoid")]
    )
    model.layers[0].trainable = False
    return _compiled(model, **options)


def _shared(**options: Any) -> keras.Model:
    inputs, shared = keras.Input((5,)), layers.Dense(5, "tanh")
    return _compiled(
        keras.Model(inputs, layers.Dense(1, "sigmoid")(shared(shared(inputs)))), **options
    )


_STRANGER = {"round trip": "Keras's own layers, whose saving Keras tests"}
_HALF_LOSS = {
    **_STRANGER,
    "mixed precision": "Keras cannot add a layer's loss in half precision to one in float32",
}

CASES = [
    Case("neural_network", _neural_network, lambda: _binary(30), (NeuralNetwork,)),
    Case("classes", _classes, lambda: (_binary(30)[0], np.arange(ROWS) % 3), (NeuralNetwork,)),
    Case(
        "regression", _regression, lambda: (_binary(5)[0], _binary(5)[0][:, :2]), (NeuralNetwork,)
    ),
    Case(
        "label_smoothing",
        _label_smoothing,
        lambda: _binary(30),
        (Learner, LabelSmoothing, Supervised),
    ),
    Case(
        "noise_prediction",
        _noise_prediction,
        lambda: (_binary(5)[0], None),
        (Learner, NoisePrediction),
    ),
    Case(
        "accumulation",
        _accumulation,
        lambda: _binary(30),
        (RuledLearner, Accumulation),
        {"one forward": "a gradient rule that calls the network once for each part"},
    ),
    Case("cnn", _cnn, lambda: _binary(6, 6, 1), exempt=_STRANGER),
    Case("lstm_masked", _lstm, _tokens, exempt=_STRANGER),
    Case("attention", _attention, lambda: _binary(6, 5), exempt=_STRANGER),
    Case("two_heads", _two_heads, _two_heads_data, exempt=_STRANGER),
    Case("add_loss", _add_loss, lambda: _binary(8), exempt=_HALF_LOSS),
    Case("regularized", _regularized, lambda: _binary(8), exempt=_HALF_LOSS),
    Case("frozen", _frozen, lambda: _binary(8), exempt=_STRANGER),
    Case("shared_layer", _shared, lambda: _binary(5), exempt=_STRANGER),
    Case(
        "causal_lm",
        transformers.causal_lm,
        transformers.packed_data,
        (
            models.CausalLM,
            models.Transformer,
            models.Block,
            models.Attention,
            models.Causal,
            models.DotProduct,
            models.GatedFeedForward,
            models.PreNorm,
            models.RMSNorm,
            models.Rotary,
            models.TiedHead,
            models.TokenFront,
        ),
    ),
    Case(
        "capped_lm",
        transformers.capped_lm,
        transformers.language_data,
        (models.LongRotary, models.SandwichNorm, models.SoftCappedDotProduct),
        big=True,
    ),
    Case(
        "mixture_lm",
        transformers.mixture_lm,
        transformers.language_data,
        (models.MixtureOfExperts,),
        big=True,
    ),
    Case(
        "masked_lm",
        transformers.masked_lm,
        transformers.language_data,
        (
            models.MaskedLM,
            models.FeedForward,
            models.LearnedPositions,
            models.PostNorm,
            models.Transform,
        ),
        big=True,
    ),
    Case(
        "text_encoder",
        transformers.text_encoder,
        lambda: (transformers.language_data()[0], transformers.classes(3)),
        (models.TextEncoder, models.CountingTokenFront, models.MeanToken, models.Classifier),
        big=True,
    ),
    Case(
        "seq2seq",
        transformers.seq2seq,
        transformers.seq2seq_data,
        (models.Seq2Seq, models.Everywhere, models.Head, models.RelativeBias),
    ),
    Case(
        "vision_transformer",
        transformers.vision,
        lambda: (transformers.images(), transformers.classes(3)),
        (models.VisionTransformer, models.FirstToken, models.PatchFront),
    ),
    Case(
        "speech_encoder",
        transformers.speech,
        lambda: (transformers.frames(), transformers.classes(3)),
        (
            models.SpeechEncoder,
            models.LastToken,
            models.SinusoidalPositions,
            models.SoundFront,
        ),
        big=True,
    ),
    Case(
        "dual_encoder",
        transformers.dual,
        lambda: (
            {**transformers.language_data()[0], "images": transformers.images()},
            # Each row of logits is over the images of the batch, of which the last has six.
            transformers.classes(6),
        ),
        (models.DualEncoder, models.EndToken),
        big=True,
    ),
]

# Public classes that are neither a network nor a technique.
NOT_A_CASE = {
    "Loop": "a driver: every law runs it",
    "Objective": "abstract",
    "KeyValueCache": "holds arrays between calls; tests/models and tests/generation",
    "UnitLength": "no weights; tests/interop compares it with sentence-transformers",
}
