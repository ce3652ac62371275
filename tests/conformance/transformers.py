"""The Transformer's networks as cases for the laws: small, and with every part in one of them."""

from typing import Any

import keras
import numpy as np

from tfbig import models
from tfbig.models import (
    Attention,
    Block,
    Causal,
    Classifier,
    FeedForward,
    GatedFeedForward,
    PreNorm,
    RMSNorm,
    TokenFront,
    Transform,
    Transformer,
)

ROWS, TIME, VOCABULARY, DIM = 22, 6, 13, 8  # batches of 8, 8 and 6
DROPOUT = 0.1
LAYER_NORM = keras.layers.LayerNormalization


def _rng() -> np.random.Generator:
    return np.random.default_rng(7)


def _compiled(model: keras.Model, options: dict[str, Any]) -> keras.Model:
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(**{"optimizer": "adam", "metrics": ["accuracy"], "loss": loss, **options})
    return model


def _tokens() -> np.ndarray:
    return _rng().integers(1, VOCABULARY, size=(ROWS, TIME)).astype("int32")


def _padded() -> dict[str, np.ndarray]:
    mask = np.ones((ROWS, TIME), "int32")
    mask[::2, 4:] = 0
    return {"token_ids": _tokens(), "padding_mask": mask}


def causal_lm(**options: Any) -> keras.Model:
    """Grouped queries, query and key norms, rotary positions, a window and no window in turn."""

    def block(window: int | None) -> Block:
        attention = Attention(
            4,
            4,
            num_key_value_heads=2,
            rotary=models.Rotary(models.rotary_frequencies(4)),
            sees=Causal(window),
            norm=RMSNorm(),
        )
        return Block(attention, GatedFeedForward(10), PreNorm(RMSNorm(), DROPOUT))

    stack = Transformer([block(3), block(None)], 2, RMSNorm())
    network = models.CausalLM(TokenFront(VOCABULARY, DIM), stack, models.TiedHead())
    return _compiled(network, options)


def packed_data() -> tuple[Any, Any]:
    """Rows of two documents each: segments, positions, targets."""
    token_ids = _tokens()
    segments = np.tile([1, 1, 1, 2, 2, 2], (ROWS, 1)).astype("int32")
    positions = np.tile([0, 1, 2, 0, 1, 2], (ROWS, 1)).astype("int32")
    inputs = {"token_ids": token_ids, "segment_ids": segments, "positions": positions}
    return inputs, np.roll(token_ids, -1, axis=1)


def capped_lm(**options: Any) -> keras.Model:
    """Gemma 2's parts, and LongRoPE."""
    rotary = models.LongRotary((1.0, 0.1), (0.5, 0.01), original_length=4)
    score = models.SoftCappedDotProduct(5.0, scale=0.3)
    attention = Attention(2, 4, rotary=rotary, score=score, sees=Causal(), dropout=DROPOUT)
    block = Block(
        attention,
        GatedFeedForward(10, models.gelu_tanh),
        models.SandwichNorm(RMSNorm(offset=1.0)),
    )
    network = models.CausalLM(
        TokenFront(VOCABULARY, DIM, scale=DIM**0.5),
        Transformer(block, 1, RMSNorm(offset=1.0)),
        models.TiedHead(cap=30.0),
    )
    return _compiled(network, options)


def mixture_lm(**options: Any) -> keras.Model:
    """A mixture of experts, with its balance loss."""
    experts = models.MixtureOfExperts(3, 2, 10)
    network = models.language_model(VOCABULARY, 1, 2, DIM, feed_forward=experts, dropout=DROPOUT)
    return _compiled(network, options)


def masked_lm(**options: Any) -> keras.Model:
    """BERT's parts."""
    norm = LAYER_NORM(epsilon=1e-6)
    attention = Attention(2, 4, biases=("query", "key", "value", "output"))
    block = Block(attention, FeedForward(12, dropout=DROPOUT), models.PostNorm(norm))
    front = TokenFront(
        VOCABULARY, DIM, models.LearnedPositions(TIME, DIM), 2, norm=norm, dropout=DROPOUT
    )
    head = models.TiedHead(bias_size=VOCABULARY, transform=Transform(DIM, norm=norm))
    return _compiled(models.MaskedLM(front, Transformer(block, 1), head), options)


def text_encoder(**options: Any) -> keras.Model:
    """A classifier over the mean of the tokens, RoBERTa's positions, and CLIP's activation."""
    block = Block(Attention(2, 4), FeedForward(12, models.quick_gelu), PreNorm(LAYER_NORM()))
    positions = models.LearnedPositions(TIME, DIM, offset=1)
    network = models.TextEncoder(
        models.CountingTokenFront(VOCABULARY, DIM, positions, pad_id=0),
        Transformer(block, 1, LAYER_NORM()),
        models.MeanToken(),
        Classifier(3, Transform(DIM, "tanh"), DROPOUT),
    )
    return _compiled(network, options)


def seq2seq(**options: Any) -> keras.Model:
    """T5's parts, and an untied head."""

    def stack(name: str, sees: Any, bias: Any, cross: Any = None) -> Transformer:
        attention = Attention(2, 4, score=models.DotProduct(scale=1.0), sees=sees)
        block = Block(attention, FeedForward(12, "relu", False), PreNorm(RMSNorm(), DROPOUT), cross)
        return Transformer(block, 1, RMSNorm(), bias, name=name)

    network = models.Seq2Seq(
        TokenFront(VOCABULARY, DIM),
        stack("encoder", models.Everywhere(), models.RelativeBias(2, 8, 16)),
        stack("decoder", Causal(), models.RelativeBias(2, 8, 16, False), Attention(2, 4)),
        models.Head(VOCABULARY),
    )
    return _compiled(network, options)


def seq2seq_data() -> tuple[Any, Any]:
    """A source with padding, a target, and the target one on."""
    source = _padded()
    target = _tokens()[::-1].copy()
    inputs = {
        "encoder_token_ids": source["token_ids"],
        "encoder_padding_mask": source["padding_mask"],
        "decoder_token_ids": target,
    }
    return inputs, np.roll(target, -1, axis=1)


def vision(**options: Any) -> keras.Model:
    """ViT."""
    block = Block(Attention(2, 4), FeedForward(12), PreNorm(LAYER_NORM(), DROPOUT))
    network = models.VisionTransformer(
        models.PatchFront(4, 2, DIM, channels=1),
        Transformer(block, 1, LAYER_NORM()),
        models.FirstToken(),
        Classifier(3),
    )
    return _compiled(network, options)


def speech(**options: Any) -> keras.Model:
    """Whisper's front, and the last state."""
    block = Block(Attention(2, 4), FeedForward(12), PreNorm(LAYER_NORM(), DROPOUT))
    network = models.SpeechEncoder(
        models.SoundFront(5, DIM, models.SinusoidalPositions(DIM)),
        Transformer(block, 1, LAYER_NORM()),
        models.LastToken(),
        Classifier(3),
    )
    return _compiled(network, options)


def dual(**options: Any) -> keras.Model:
    """CLIP: an image and a text."""
    block = Block(Attention(2, 4), FeedForward(12), PreNorm(LAYER_NORM()))
    stack = Transformer(block, 1, LAYER_NORM())
    image = models.VisionTransformer(
        models.PatchFront(4, 2, DIM, channels=1, use_bias=False, norm=LAYER_NORM()),
        stack,
        models.FirstToken(),
        Classifier(6),
        name="image",
    )
    text = models.TextEncoder(
        TokenFront(VOCABULARY, DIM, dropout=DROPOUT),
        Transformer(block, 1, LAYER_NORM()),
        models.EndToken(None),
        Classifier(6),
        name="text",
    )
    return _compiled(models.DualEncoder(image, text), options)


def images() -> np.ndarray:
    """Small pictures of one channel."""
    return _rng().normal(size=(ROWS, 4, 4, 1)).astype("float32")


def classes(count: int) -> np.ndarray:
    """A class for each row."""
    return np.arange(ROWS) % count


def language_data() -> tuple[Any, Any]:
    """Token ids with padding, and what stands one on."""
    inputs = _padded()
    return inputs, np.roll(inputs["token_ids"], -1, axis=1)


def frames() -> np.ndarray:
    """Spectrograms of eight frames."""
    return _rng().normal(size=(ROWS, 8, 5)).astype("float32")
