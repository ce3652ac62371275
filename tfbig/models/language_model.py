"""Networks that give logits over tokens: the next one (GPT-2, Llama) or a masked one (BERT)."""

from typing import Any

import keras

from tfbig.models.cache import KeyValueCache
from tfbig.models.masks import Causal
from tfbig.models.parts import Network, build_once, serialized


def token_inputs(inputs: Any) -> dict[str, Any]:
    """What a network over text is called on, as a dict.

    Raises:
        ValueError: if there is something else in it, or of another kind.

    >>> list(token_inputs(keras.ops.ones((2, 3), "int32")))
    ['token_ids']
    """
    known = {"token_ids", "padding_mask", "segment_ids", "positions", "type_ids"}
    if not isinstance(inputs, dict):
        inputs = {"token_ids": inputs}
    if "token_ids" not in inputs or set(inputs) - known:
        raise ValueError(
            f"The inputs are {sorted(inputs)}; a network over text is called on token ids "
            f"(batch, time), or on a dict of token_ids and, if need be, {sorted(known)}."
        )
    for name in inputs:
        check_ids(name, inputs[name])
    mask, time = inputs.get("padding_mask"), inputs["token_ids"].shape[1]
    if mask is not None and None not in (time, mask.shape[1]) and mask.shape[1] < time:
        raise ValueError(
            f"padding_mask has {mask.shape[1]} slots and token_ids {time}: it has as many (with a "
            f"cache, those of the cache)."
        )
    return inputs


def check_ids(name: str, ids: Any) -> None:
    """Raises ValueError unless `ids` are whole numbers `(batch, time)`; a mask may be boolean.

    >>> check_ids("token_ids", keras.ops.ones((2, 3)))
    Traceback (most recent call last):
    ValueError: token_ids are integers (batch, time), and these are float32 (2, 3).
    """
    dtype = keras.backend.standardize_dtype(ids.dtype)
    mask = name.endswith("padding_mask")
    if len(ids.shape) != 2 or not ("int" in dtype or (mask and dtype == "bool")):
        raise ValueError(
            f"{name} are integers (batch, time), and these are {dtype} {tuple(ids.shape)}."
        )


@keras.saving.register_keras_serializable("tfbig")
class LanguageModel(Network):
    """A front of tokens, a Transformer and a head over the vocabulary.

    Args:
        front: a part: `TokenFront`.
        transformer: a part: `Transformer`.
        head: a part: `TiedHead` or `Head`.

    Call:
        inputs: token ids `(batch, time)`; or a dict of `token_ids` and any of `padding_mask`
            (`(batch, time)`, 1 on tokens), `segment_ids` (numbers of packed documents),
            `positions`, `type_ids`.
        cache: a `KeyValueCache`, for generation.

    Returns:
        Logits `(batch, time, vocabulary)`.
    """

    def __init__(self, front: Any, transformer: Any, head: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.front = front
        self.transformer = transformer
        self.head = head

    def build(self, input_shape: Any = None) -> None:
        hidden = (None, None, self.front.hidden_dim)
        build_once(self.front, (None, None))
        build_once(self.transformer, hidden)
        build_once(self.head, hidden)
        self.built = True

    def call(
        self, inputs: Any, cache: KeyValueCache | None = None, training: bool | None = None
    ) -> Any:
        return self.logits(self.hidden(inputs, cache, training))

    def hidden(
        self, inputs: Any, cache: KeyValueCache | None = None, training: bool | None = None
    ) -> Any:
        """The hidden states before the head, `(batch, time, dim)`."""
        inputs = token_inputs(inputs)
        positions = inputs.get("positions")
        if positions is None and cache is not None:
            positions = cache.slots(inputs["token_ids"].shape[1])[None]
        padding_mask = inputs.get("padding_mask")
        x = self.front(
            inputs["token_ids"], positions, inputs.get("type_ids"), padding_mask, training=training
        )
        return self.transformer(
            x,
            positions=positions,
            padding_mask=padding_mask,
            segment_ids=inputs.get("segment_ids"),
            cache=cache,
            training=training,
        )

    def logits(self, hidden: Any) -> Any:
        """The head's logits of hidden states, of any layer (the logit lens)."""
        return self.head(hidden, self.front.table)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            **serialized(front=self.front, transformer=self.transformer, head=self.head),
        }


@keras.saving.register_keras_serializable("tfbig")
class CausalLM(LanguageModel):
    """Predicts the next token; its attentions see what came before: `Attention(sees=Causal())`.

    `language_model()` builds one from a few numbers.

    Raises:
        ValueError: if an attention sees what comes after, too: it would be told the answer.

    >>> from keras import ops
    >>> model = language_model(vocabulary_size=100, num_layers=2, num_heads=2, hidden_dim=16)
    >>> model(ops.ones((2, 5), "int32")).shape
    TensorShape([2, 5, 100])
    """

    def __init__(self, front: Any, transformer: Any, head: Any, **kwargs: Any) -> None:
        super().__init__(front, transformer, head, **kwargs)
        for block in transformer.blocks:
            if not isinstance(block.attention.sees, Causal):
                raise ValueError(
                    f"The attention of {block.name} sees the tokens that a CausalLM is to predict: "
                    f"give it sees=Causal()."
                )


@keras.saving.register_keras_serializable("tfbig")
class MaskedLM(LanguageModel):
    """Predicts tokens from both sides; the head is BERT's: `TiedHead(transform=Transform(...))`.

    >>> from keras import ops
    >>> from tfbig.models import Attention, Block, FeedForward, PostNorm, TiedHead, TokenFront
    >>> from tfbig.models import Transform, Transformer
    >>> norm = keras.layers.LayerNormalization()
    >>> block = Block(Attention(2, 8), FeedForward(32), PostNorm(norm))
    >>> head = TiedHead(bias_size=100, transform=Transform(16, norm=norm))
    >>> model = MaskedLM(TokenFront(100, 16, norm=norm), Transformer(block, 2), head)
    >>> model(ops.ones((2, 5), "int32")).shape
    TensorShape([2, 5, 100])
    """


def language_model(
    vocabulary_size: int,
    num_layers: int,
    num_heads: int,
    hidden_dim: int,
    num_key_value_heads: int | None = None,
    intermediate_dim: int | None = None,
    rotary_base: float = 10_000.0,
    dropout: float = 0.0,
    feed_forward: Any = None,
    name: str | None = None,
) -> CausalLM:
    """A decoder as they are built today: RMSNorm before each branch, rotary positions, SwiGLU.

    Args:
        vocabulary_size: the number of tokens.
        num_layers: the number of blocks.
        num_heads: query heads.
        hidden_dim: the width, a multiple of `num_heads`.
        num_key_value_heads: key/value heads; None: as many as query heads.
        intermediate_dim: of the gated feed-forward; None: 8/3 of the width, to a multiple of 16,
            which has the parameters of an ungated one of 4.
        rotary_base: of the rotary positions; larger for longer rows.
        dropout: of what each branch adds; 0 where each text is read once.
        feed_forward: another part instead of the gated one, such as `MixtureOfExperts`.
        name: of the model.

    Returns:
        A `CausalLM` whose head is tied to the token vectors; kernels start at N(0, 0.02) (GPT-2's).

    >>> language_model(100, 2, 4, 32, num_key_value_heads=2).front.hidden_dim
    32
    """
    from tfbig.models.attention import Attention
    from tfbig.models.feed_forward import GatedFeedForward
    from tfbig.models.heads import TiedHead
    from tfbig.models.norms import RMSNorm
    from tfbig.models.rotary import Rotary, rotary_frequencies
    from tfbig.models.token_fronts import TokenFront
    from tfbig.models.transformer import Block, PreNorm, Transformer

    if hidden_dim % num_heads or (hidden_dim // num_heads) % 2:
        raise ValueError(
            f"hidden_dim ({hidden_dim}) over num_heads ({num_heads}) is a head's width: "
            f"it must be whole and even (rotary positions turn pairs)."
        )
    head_dim = hidden_dim // num_heads
    start = keras.initializers.RandomNormal(stddev=0.02)
    attention = Attention(
        num_heads,
        head_dim,
        num_key_value_heads,
        rotary=Rotary(rotary_frequencies(head_dim, rotary_base)),
        sees=Causal(),
        initializer=start,
    )
    width = intermediate_dim or 16 * round(hidden_dim / 6)
    feed_forward = feed_forward or GatedFeedForward(width, initializer=start)
    block = Block(attention, feed_forward, PreNorm(RMSNorm(), dropout))
    return CausalLM(
        TokenFront(vocabulary_size, hidden_dim, initializer=start),
        Transformer(block, num_layers, norm=RMSNorm()),
        TiedHead(),
        name=name,
    )
