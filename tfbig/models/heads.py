"""What stands after a Transformer: logits over tokens, classes, vectors of length 1.

A head over the vocabulary is called on hidden states and the table of token vectors; `TiedHead`
uses the table, `Head` has weights of its own.
"""

from typing import Any

import keras
from keras import ops

from tfbig.models.parts import Composite, clone, precise, serialized
from tfbig.models.scores import soft_capped


@keras.saving.register_keras_serializable("tfbig")
class Head(keras.layers.Layer):
    """Logits by a matrix of its own.

    Args:
        vocabulary_size: the number of logits.
        use_bias: whether there is one.
        initializer: of the matrix.
        cap: as in `TiedHead`.

    Shapes:
        hidden `(batch, time, dim)` and a table, not used, in; `(batch, time, vocabulary_size)` out.

    >>> Head(100)(ops.ones((2, 5, 16)), None).shape
    TensorShape([2, 5, 100])
    """

    def __init__(
        self,
        vocabulary_size: int,
        use_bias: bool = False,
        initializer: Any = "glorot_uniform",
        cap: float | None = None,
        name: str = "head",
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, **kwargs)
        self.vocabulary_size = vocabulary_size
        self.use_bias = use_bias
        self.cap = cap
        self.initializer = keras.initializers.get(initializer)
        self.logits = keras.layers.Dense(
            vocabulary_size,
            use_bias=use_bias,
            kernel_initializer=clone(self.initializer),
            name="logits",
            dtype=self.dtype_policy,
        )

    def build(self, hidden_shape: Any, *shapes: Any) -> None:
        self.logits.build(hidden_shape)
        self.built = True

    def call(self, hidden: Any, table: Any = None) -> Any:
        logits = self.logits(hidden)
        return logits if self.cap is None else soft_capped(logits, self.cap)

    def compute_output_shape(self, hidden_shape: Any, *args: Any, **kwargs: Any) -> Any:
        return (*hidden_shape[:-1], self.vocabulary_size)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "vocabulary_size": self.vocabulary_size,
            "use_bias": self.use_bias,
            "initializer": keras.initializers.serialize(self.initializer),
            "cap": self.cap,
        }


@keras.saving.register_keras_serializable("tfbig")
class TiedHead(Composite, keras.layers.Layer):
    """Logits by the table of token vectors: `scale x hidden . table (+ bias)`, soft-capped or not.

    Args:
        scale: of the hidden states; hidden_dim^-0.5 for T5.
        cap: no logit is larger: 30 for Gemma 2; None for no cap.
        bias_size: 0 for no bias, else the vocabulary size (BERT, Marian).
        transform: a part before the product, such as `Transform`; None for none.

    Shapes:
        hidden `(batch, time, dim)` and table `(vocabulary, dim)` in; `(batch, time, vocabulary)`
        out.

    >>> TiedHead()(ops.ones((2, 5, 16)), ops.ones((100, 16))).shape
    TensorShape([2, 5, 100])
    """

    def __init__(
        self,
        scale: float = 1.0,
        cap: float | None = None,
        bias_size: int = 0,
        transform: Any = None,
        name: str = "head",
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, **kwargs)
        self.scale = scale
        self.cap = cap
        self.bias_size = bias_size
        self.transform = clone(transform, "transform")

    def build(self, hidden_shape: Any, *shapes: Any) -> None:
        if self.bias_size:
            self.bias = self.add_weight(name="bias", shape=(self.bias_size,), initializer="zeros")
        if self.transform is not None:
            self.transform.build(hidden_shape)
        self.built = True

    def call(self, hidden: Any, table: Any) -> Any:
        if self.transform is not None:
            hidden = self.transform(hidden)
        table = ops.cast(table, self.compute_dtype)
        logits = ops.matmul(hidden * self.scale, ops.transpose(table))
        if self.bias_size:
            logits = logits + self.bias
        return logits if self.cap is None else soft_capped(logits, self.cap)

    def compute_output_shape(self, hidden_shape: Any, table_shape: Any) -> Any:
        return (*hidden_shape[:-1], table_shape[0])

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "scale": self.scale,
            "cap": self.cap,
            "bias_size": self.bias_size,
            **serialized(transform=self.transform),
        }


@keras.saving.register_keras_serializable("tfbig")
class Transform(Composite, keras.layers.Layer):
    """`norm(activation(dense(dropout(x))))`: what BERT's heads do before they decide.

    Args:
        units: the width out.
        activation: after the dense layer.
        norm: a part, or None.
        dropout: of what comes in (RoBERTa's classifier).

    Shapes:
        `(..., dim)` in, `(..., units)` out.

    >>> Transform(8, "tanh")(ops.ones((2, 16))).shape
    TensorShape([2, 8])
    """

    def __init__(
        self,
        units: int,
        activation: Any = "gelu",
        norm: Any = None,
        dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.units = units
        self.activation = keras.activations.get(activation)
        self.dense = keras.layers.Dense(
            units, activation=self.activation, name="dense", dtype=self.dtype_policy
        )
        self.norm = clone(norm, "norm")
        self.dropout = keras.layers.Dropout(dropout, dtype=self.dtype_policy)

    def build(self, input_shape: Any) -> None:
        self.dense.build(input_shape)
        if self.norm is not None:
            self.norm.build((*input_shape[:-1], self.units))
        self.built = True

    def call(self, x: Any, training: bool | None = None) -> Any:
        x = self.dense(self.dropout(x, training=training))
        return x if self.norm is None else self.norm(x)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (*input_shape[:-1], self.units)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "units": self.units,
            "activation": keras.activations.serialize(self.activation),
            "dropout": self.dropout.rate,
            **serialized(norm=self.norm),
        }


def unit_length(x: Any) -> Any:
    """x divided by its length over the last axis.

    >>> [round(float(v), 3) for v in unit_length(ops.array([[3.0, 4.0]]))[0]]
    [0.6, 0.8]
    """
    dtype = keras.backend.standardize_dtype(x.dtype)
    x = ops.cast(x, precise(dtype))
    square = ops.sum(ops.square(x), axis=-1, keepdims=True)
    # Bounded under the root, where a zero vector would have no gradient.
    return ops.cast(x * ops.rsqrt(ops.maximum(square, 1e-24)), dtype)


@keras.saving.register_keras_serializable("tfbig")
class UnitLength(keras.layers.Layer):
    """Vectors of length 1, whose products are cosines.

    >>> [round(float(v), 3) for v in UnitLength()(ops.array([[3.0, 4.0]]))[0]]
    [0.6, 0.8]
    """

    def call(self, x: Any, training: bool | None = None) -> Any:
        return unit_length(x)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape


@keras.saving.register_keras_serializable("tfbig")
class Classifier(Composite, keras.layers.Layer):
    """`dense(dropout(transform(x)))`: logits of classes.

    Args:
        num_classes: the number of logits.
        transform: a part before it, such as `Transform`; None for none.
        dropout: before the last layer.

    Shapes:
        `(..., dim)` in, `(..., num_classes)` out.

    >>> Classifier(3, Transform(16, "tanh"))(ops.ones((2, 16))).shape
    TensorShape([2, 3])
    """

    def __init__(
        self,
        num_classes: int,
        transform: Any = None,
        dropout: float = 0.0,
        name: str = "head",
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, **kwargs)
        self.num_classes = num_classes
        self.transform = clone(transform, "transform")
        self.dropout = keras.layers.Dropout(dropout, dtype=self.dtype_policy)
        self.logits = keras.layers.Dense(num_classes, name="logits", dtype=self.dtype_policy)

    def build(self, input_shape: Any) -> None:
        if self.transform is not None:
            self.transform.build(input_shape)
            input_shape = (*input_shape[:-1], self.transform.units)
        self.logits.build(input_shape)
        self.built = True

    def call(self, x: Any, training: bool | None = None) -> Any:
        if self.transform is not None:
            x = self.transform(x)
        return self.logits(self.dropout(x, training=training))

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (*input_shape[:-1], self.num_classes)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_classes": self.num_classes,
            "dropout": self.dropout.rate,
            **serialized(transform=self.transform),
        }
