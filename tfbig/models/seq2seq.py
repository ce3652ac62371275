"""An encoder and a decoder that reads it: translation, summaries, speech to text."""

from typing import Any

import keras
from keras import ops

from tfbig.models.cache import KeyValueCache
from tfbig.models.parts import Network, build_once, serialized

SOURCES = ("encoder_token_ids", "encoder_features")


def shifted_right(labels: Any, start_id: int, pad_id: int) -> Any:
    """What a decoder reads while it learns to write `labels`: a start token, then all but the last.

    Args:
        labels: `(batch, time)` integers; -100 stands where no loss is taken.
        start_id: config.json's `decoder_start_token_id`: T5's and Marian's is the padding itself.
        pad_id: what is read in place of -100.

    Returns:
        `(batch, time)`, of the dtype of the labels.

    >>> ops.convert_to_numpy(shifted_right(ops.array([[7, 8, -100, -100]]), 1, 0)).tolist()
    [[1, 7, 8, 0]]
    """
    labels = ops.convert_to_tensor(labels)
    start = ops.full_like(labels[:, :1], start_id)
    shifted = ops.concatenate([start, labels[:, :-1]], axis=1)
    return ops.where(shifted == -100, ops.cast(pad_id, shifted.dtype), shifted)


@keras.saving.register_keras_serializable("tfbig")
class Seq2Seq(Network):
    """The Transformer of the first paper (T5, Marian, Whisper).

    Args:
        front: a part for the encoder: `TokenFront`, or `SoundFront` for speech.
        encoder: a part: `Transformer`.
        decoder: a part: `Transformer` whose blocks have a cross-attention.
        head: a part over the vocabulary: `TiedHead` (to the decoder's front) or `Head`.
        decoder_front: a part: `TokenFront`; None: the encoder's, shared (T5, Marian).

    Call:
        inputs: a dict of `encoder_token_ids` `(batch, source time)` or `encoder_features`
            `(batch, frames, channels)`, of `decoder_token_ids` `(batch, time)`, and if need be of
            `encoder_padding_mask` and `decoder_padding_mask`, 1 on tokens.

    Returns:
        Logits `(batch, time, vocabulary)`.

    >>> from tfbig.models import (Attention, Block, Causal, FeedForward, PreNorm, TiedHead,
    ...                           TokenFront, Transformer)
    >>> norm = keras.layers.LayerNormalization()
    >>> encoder = Transformer(Block(Attention(2, 8), FeedForward(32), PreNorm(norm)), 2, norm)
    >>> block = Block(Attention(2, 8, sees=Causal()), FeedForward(32), PreNorm(norm),
    ...               cross_attention=Attention(2, 8))
    >>> model = Seq2Seq(TokenFront(100, 16), encoder, Transformer(block, 2, norm), TiedHead())
    >>> ids = ops.ones((2, 5), "int32")
    >>> model({"encoder_token_ids": ids, "decoder_token_ids": ids[:, :3]}).shape
    TensorShape([2, 3, 100])
    """

    def __init__(
        self,
        front: Any,
        encoder: Any,
        decoder: Any,
        head: Any,
        decoder_front: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.front = front
        self.encoder = encoder
        self.decoder = decoder
        self.head = head
        self.decoder_front = decoder_front

    @property
    def target_front(self) -> Any:
        """The front of the decoder."""
        return self.front if self.decoder_front is None else self.decoder_front

    def build(self, input_shape: Any = None) -> None:
        source = (None, None, self.front.hidden_dim)
        target = (None, None, self.target_front.hidden_dim)
        build_once(self.front)
        build_once(self.encoder, source)
        build_once(self.target_front)
        build_once(self.decoder, target, source)
        build_once(self.head, target)
        self.built = True

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        memory = self.encode(inputs, training)
        return self.decode(inputs, memory, training=training)

    def encode(self, inputs: dict[str, Any], training: bool | None = None) -> Any:
        """What the decoder reads, `(batch, source time, dim)`."""
        given = [name for name in SOURCES if name in inputs]
        if len(given) != 1:
            raise ValueError(
                f"The inputs are {sorted(inputs)}; a Seq2Seq is called on a dict with one of "
                f"{SOURCES}, and decoder_token_ids."
            )
        x = self.front(inputs[given[0]], training=training)
        return self.encoder(x, padding_mask=inputs.get("encoder_padding_mask"), training=training)

    def decode(
        self,
        inputs: dict[str, Any],
        memory: Any,
        cache: KeyValueCache | None = None,
        training: bool | None = None,
    ) -> Any:
        """The logits of `decoder_token_ids`, with a cache or without."""
        return self.logits(self.decoder_hidden(inputs, memory, cache, training))

    def decoder_hidden(
        self,
        inputs: dict[str, Any],
        memory: Any,
        cache: KeyValueCache | None = None,
        training: bool | None = None,
    ) -> Any:
        """The decoder's hidden states before the head, `(batch, time, dim)`."""
        token_ids = inputs["decoder_token_ids"]
        positions = None if cache is None else cache.slots(token_ids.shape[1])[None]
        x = self.target_front(token_ids, positions, training=training)
        return self.decoder(
            x,
            memory,
            positions=positions,
            padding_mask=inputs.get("decoder_padding_mask"),
            memory_padding_mask=inputs.get("encoder_padding_mask"),
            cache=cache,
            training=training,
        )

    def logits(self, hidden: Any) -> Any:
        """The head's logits of the decoder's hidden states."""
        return self.head(hidden, self.target_front.table)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            **serialized(
                front=self.front,
                encoder=self.encoder,
                decoder=self.decoder,
                head=self.head,
                decoder_front=self.decoder_front,
            ),
        }
