"""Networks that turn a text, an image or a sound into vectors or classes."""

from typing import Any

import keras

from tfbig.models.heads import unit_length
from tfbig.models.language_model import token_inputs
from tfbig.models.parts import Network, build_once, serialized


class Encoder(Network):
    """A front, a Transformer, and what is made of its states.

    Args:
        front: a part: `TokenFront`, `PatchFront` or `SoundFront`.
        transformer: a part: `Transformer`.
        pooling: a part that makes one vector of a row: `FirstToken`, `MeanToken`, `LastToken`,
            `EndToken`; None gives the states of all tokens.
        head: a layer on what there is then, such as `Classifier`; None for none.
    """

    def __init__(
        self, front: Any, transformer: Any, pooling: Any = None, head: Any = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.front = front
        self.transformer = transformer
        self.pooling = pooling
        self.head = head

    def build(self, input_shape: Any = None) -> None:
        hidden: tuple[int | None, ...] = (None, None, self.front.hidden_dim)
        build_once(self.front)
        build_once(self.transformer, hidden)
        if self.pooling is not None:
            hidden = (None, self.front.hidden_dim)
        if self.head is not None:
            build_once(self.head, hidden)
        self.built = True

    def encode(self, inputs: Any, training: bool | None = None) -> tuple[Any, Any]:
        """The hidden states `(batch, time, dim)`, and the padding mask or None."""
        return self.transformer(self.front(inputs, training=training), training=training), None

    def token_ids(self, inputs: Any) -> Any:
        """The token ids `(batch, time)` among the inputs; None where there are none."""
        return None

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        x, padding_mask = self.encode(inputs, training)
        if self.pooling is not None:
            x = self.pooling(x, padding_mask, self.token_ids(inputs))
        return x if self.head is None else self.head(x, training=training)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            **serialized(
                front=self.front,
                transformer=self.transformer,
                pooling=self.pooling,
                head=self.head,
            ),
        }


@keras.saving.register_keras_serializable("tfbig")
class TextEncoder(Encoder):
    """Vectors or classes of text (BERT, sentence-transformers, CLIP's text).

    Call:
        inputs: token ids `(batch, time)`, or a dict of `token_ids` and any of `padding_mask`,
            `segment_ids`, `positions`, `type_ids`.

    Returns:
        `(batch, time, dim)`; `(batch, dim)` with pooling; what a head makes of it.

    >>> from keras import ops
    >>> from tfbig.models import (Attention, Block, FeedForward, MeanToken, PostNorm, TokenFront,
    ...                           Transformer)
    >>> norm = keras.layers.LayerNormalization()
    >>> block = Block(Attention(2, 8), FeedForward(32), PostNorm(norm))
    >>> model = TextEncoder(TokenFront(100, 16, norm=norm), Transformer(block, 2), MeanToken())
    >>> model(ops.ones((2, 5), "int32")).shape
    TensorShape([2, 16])
    """

    def encode(self, inputs: Any, training: bool | None = None) -> tuple[Any, Any]:
        """The hidden states `(batch, time, dim)`, and the padding mask or None."""
        inputs = token_inputs(inputs)
        positions, padding_mask = inputs.get("positions"), inputs.get("padding_mask")
        x = self.front(
            inputs["token_ids"], positions, inputs.get("type_ids"), padding_mask, training=training
        )
        x = self.transformer(
            x,
            positions=positions,
            padding_mask=padding_mask,
            segment_ids=inputs.get("segment_ids"),
            training=training,
        )
        return x, padding_mask

    def token_ids(self, inputs: Any) -> Any:
        """The token ids `(batch, time)` among the inputs."""
        return token_inputs(inputs)["token_ids"]


@keras.saving.register_keras_serializable("tfbig")
class VisionTransformer(Encoder):
    """Vectors or classes of images (Dosovitskiy et al., 2020, arXiv:2010.11929).

    Shapes:
        images `(batch, height, width, channels)` in; as `TextEncoder` out.

    >>> from keras import ops
    >>> from tfbig.models import (Attention, Block, Classifier, FeedForward, FirstToken, PatchFront,
    ...                           PreNorm, Transformer)
    >>> norm = keras.layers.LayerNormalization()
    >>> block = Block(Attention(2, 8), FeedForward(32), PreNorm(norm))
    >>> model = VisionTransformer(
    ...     PatchFront(8, 4, 16), Transformer(block, 2, norm), FirstToken(), Classifier(10))
    >>> model(ops.ones((2, 8, 8, 3))).shape
    TensorShape([2, 10])
    """


@keras.saving.register_keras_serializable("tfbig")
class SpeechEncoder(Encoder):
    """States of sound (Radford et al., 2022, arXiv:2212.04356).

    Shapes:
        spectrograms `(batch, frames, channels)` in; `(batch, frames / 2, dim)` out, or what pooling
        and head make of it.

    >>> from keras import ops
    >>> from tfbig.models import (Attention, Block, FeedForward, PreNorm, SinusoidalPositions,
    ...                           SoundFront, Transformer)
    >>> norm = keras.layers.LayerNormalization()
    >>> block = Block(Attention(2, 8), FeedForward(32), PreNorm(norm))
    >>> front = SoundFront(80, 16, SinusoidalPositions(16))
    >>> SpeechEncoder(front, Transformer(block, 2, norm))(ops.ones((2, 10, 80))).shape
    TensorShape([2, 5, 16])
    """


@keras.saving.register_keras_serializable("tfbig")
class DualEncoder(Network):
    """An image and a text in one space (CLIP: Radford et al., 2021, arXiv:2103.00020).

    Args:
        vision: an encoder of images to `(batch, dim)`.
        text: an encoder of texts to `(batch, dim)`, of the same dim.
        initial_log_scale: what the logarithm of the logits' scale starts at; CLIP: ln(1 / 0.07).

    Call:
        inputs: a dict of `images` and what `text` is called on (`token_ids`, ...).

    Returns:
        Logits `(texts, images)`: the cosines, scaled. Transposed they are those of each image.

    >>> from keras import ops
    >>> from tfbig.models import (Attention, Block, EndToken, FeedForward, FirstToken, PatchFront,
    ...                           PreNorm, TokenFront, Transformer)
    >>> norm = keras.layers.LayerNormalization()
    >>> block = Block(Attention(2, 8), FeedForward(32), PreNorm(norm))
    >>> vision = VisionTransformer(PatchFront(8, 4, 16), Transformer(block, 2), FirstToken())
    >>> text = TextEncoder(TokenFront(100, 16), Transformer(block, 2), EndToken(99))
    >>> model = DualEncoder(vision, text)
    >>> model({"images": ops.ones((3, 8, 8, 3)), "token_ids": ops.ones((2, 5), "int32")}).shape
    TensorShape([2, 3])
    """

    def __init__(
        self, vision: Any, text: Any, initial_log_scale: float = 2.6592, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.vision = vision
        self.text = text
        self.initial_log_scale = initial_log_scale

    def build(self, input_shape: Any = None) -> None:
        build_once(self.vision)
        build_once(self.text)
        self.log_scale = self.add_weight(
            name="log_scale",
            shape=(),
            initializer=keras.initializers.Constant(self.initial_log_scale),
        )
        self.built = True

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        texts = {name: value for name, value in inputs.items() if name != "images"}
        image = self.vision(inputs["images"], training=training)
        text = self.text(texts, training=training)
        logits = keras.ops.matmul(unit_length(text), keras.ops.transpose(unit_length(image)))
        return logits * keras.ops.exp(self.log_scale)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "initial_log_scale": self.initial_log_scale,
            **serialized(vision=self.vision, text=self.text),
        }
