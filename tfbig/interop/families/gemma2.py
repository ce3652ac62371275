"""Gemma 2: soft-capped scores and logits, norms before and after each branch, every other layer
sees a window.

Source: arXiv:2408.00118. Left out, with an error: `use_bidirectional_attention` (a field of
embedding models made from it).
"""

import keras

from tfbig.interop.families import decoder
from tfbig.interop.family import Config, Family, activation, field, option, optional, rate
from tfbig.interop.names import Name
from tfbig.interop.rope import rotary
from tfbig.interop.stored_tensor import CheckpointError
from tfbig.models import (
    Attention,
    Block,
    Causal,
    CausalLM,
    DotProduct,
    GatedFeedForward,
    Head,
    RMSNorm,
    SandwichNorm,
    SoftCappedDotProduct,
    TiedHead,
    TokenFront,
    Transformer,
)


def build(config: Config) -> keras.Model:
    """The network of a config."""
    if option(config, "use_bidirectional_attention", False):
        raise CheckpointError(
            "config.json: use_bidirectional_attention is true, and the Gemma 2 here predicts the "
            "next token: its attention is causal."
        )
    hidden_dim = field(config, "hidden_size")
    # Scores are divided by the root of this, whatever the head's width is.
    scale = option(config, "query_pre_attn_scalar", 256) ** -0.5
    score_cap = optional(config, "attn_logit_softcapping", 50.0)
    logit_cap = optional(config, "final_logit_softcapping", 30.0)
    start = decoder.start(config)
    norm = RMSNorm(option(config, "rms_norm_eps", 1e-6), offset=1.0)
    head_dim = option(config, "head_dim", 256)

    def block(window: int | None) -> Block:
        attention = Attention(
            field(config, "num_attention_heads"),
            head_dim,
            field(config, "num_key_value_heads"),
            biases=biases(config),
            rotary=rotary(config, head_dim),
            score=DotProduct(scale)
            if score_cap is None
            else SoftCappedDotProduct(score_cap, scale),
            sees=Causal(window),
            dropout=rate(config, "attention_dropout", 0.0),
            initializer=start,
        )
        feed_forward = GatedFeedForward(
            field(config, "intermediate_size"),
            activation(option(config, "hidden_activation", "gelu_pytorch_tanh")),
            initializer=start,
        )
        return Block(attention, feed_forward, SandwichNorm(norm))

    layers = field(config, "num_hidden_layers")
    vocabulary = field(config, "vocab_size")
    tied = decoder.tied(config, default=True)
    return CausalLM(
        # Of a bfloat16 network the product is taken in bfloat16, so the root is rounded to it.
        TokenFront(vocabulary, hidden_dim, scale=hidden_dim**0.5, initializer=start),
        Transformer([block(window) for window in windows(config, layers)], layers, norm),
        TiedHead(cap=logit_cap) if tied else Head(vocabulary, cap=logit_cap, initializer=start),
        name="gemma2",
    )


def biases(config: Config) -> tuple[str, ...]:
    """The projections of the attention that have a bias."""
    return ("query", "key", "value", "output") if option(config, "attention_bias", False) else ()


def windows(config: Config, layers: int) -> list[int | None]:
    """How far each layer sees: the first a window, the second all, and so on.

    >>> windows({"sliding_window": 8}, 3)
    [8, None, 8]
    """
    window = optional(config, "sliding_window", 4096)
    return decoder.layer_windows(config, layers, window, (i % 2 == 0 for i in range(layers)))


def names(config: Config, model: keras.Model) -> list[Name]:
    """The table of names."""
    norms = [
        Name(f"{decoder.THEIRS}.{their}_layernorm.weight", f"{decoder.OURS}.{our}.scale")
        for their, our in (
            ("input", "attention_join.norm"),
            ("post_attention", "attention_join.norm_after"),
            ("pre_feedforward", "feed_forward_join.norm"),
            ("post_feedforward", "feed_forward_join.norm_after"),
        )
    ]
    rows = [*norms, *decoder.attention_rows(biases(config)), *decoder.gated_rows()]
    return decoder.table(model, rows, not decoder.tied(config, default=True))


FAMILY = Family(
    ("gemma2",),
    build,
    names,
    prefix="model.",
    ignored=decoder.IGNORED,
)
