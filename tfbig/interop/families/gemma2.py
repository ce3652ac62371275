"""Gemma 2: soft-capped scores and logits, norms before and after each branch, every other layer
sees a window.

Source: arXiv:2408.00118. Left out, with an error: `use_bidirectional_attention` (a field of
embedding models made from it).
"""

import keras

from tfbig.interop.family import Config, Family, activation, field, option
from tfbig.interop.names import Name, each_layer, linear
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

PROJECTIONS = (
    ("query", "q_proj"),
    ("key", "k_proj"),
    ("value", "v_proj"),
    ("output_projection", "o_proj"),
)


def build(config: Config) -> keras.Model:
    """The network of a config."""
    if config.get("use_bidirectional_attention"):
        raise CheckpointError(
            "config.json: use_bidirectional_attention is true, and the Gemma 2 here predicts the "
            "next token: its attention is causal."
        )
    hidden_dim = field(config, "hidden_size")
    # Scores are divided by the root of this, whatever the head's width is.
    scale = option(config, "query_pre_attn_scalar", 256) ** -0.5
    score_cap, logit_cap = (
        config.get(name, default)
        for name, default in (("attn_logit_softcapping", 50.0), ("final_logit_softcapping", 30.0))
    )
    start = keras.initializers.RandomNormal(stddev=option(config, "initializer_range", 0.02))
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
            dropout=option(config, "attention_dropout", 0.0),
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
    tied = config.get("tie_word_embeddings", True)
    return CausalLM(
        # Of a bfloat16 network the product is taken in bfloat16, so the root is rounded to it.
        TokenFront(vocabulary, hidden_dim, scale=hidden_dim**0.5, initializer=start),
        Transformer([block(window) for window in windows(config, layers)], layers, norm),
        TiedHead(cap=logit_cap) if tied else Head(vocabulary, cap=logit_cap, initializer=start),
        name="gemma2",
    )


def biases(config: Config) -> tuple[str, ...]:
    """The projections of the attention that have a bias."""
    return ("query", "key", "value", "output") if config.get("attention_bias") else ()


def windows(config: Config, layers: int) -> list[int | None]:
    """How far each layer sees: the first a window, the second all, and so on.

    >>> windows({"sliding_window": 8}, 3)
    [8, None, 8]
    """
    window = config.get("sliding_window", 4096)
    kinds = config.get("layer_types") or [
        "full_attention" if i % 2 else "sliding_attention" for i in range(layers)
    ]
    return [window if kind == "sliding_attention" else None for kind in kinds]


def names(config: Config, model: keras.Model) -> list[Name]:
    """The table of names."""
    ours, theirs = "transformer.blocks.{i}", "model.layers.{i}"
    rows = [
        Name(f"{theirs}.{their}_layernorm.weight", f"{ours}.{our}.scale")
        for their, our in (
            ("input", "attention_join.norm"),
            ("post_attention", "attention_join.norm_after"),
            ("pre_feedforward", "feed_forward_join.norm"),
            ("post_feedforward", "feed_forward_join.norm_after"),
        )
    ]
    for our, their in PROJECTIONS:
        rows += linear(
            f"{theirs}.self_attn.{their}", f"{ours}.attention.{our}", bool(biases(config))
        )
    for part in ("gate", "up", "down"):
        rows += linear(f"{theirs}.mlp.{part}_proj", f"{ours}.feed_forward.{part}")
    head = [] if config.get("tie_word_embeddings", True) else linear("lm_head", "head.logits")
    return [
        Name("model.embed_tokens.weight", "front.tokens.embeddings"),
        *each_layer(rows, len(model.transformer.blocks)),
        Name("model.norm.weight", "transformer.norm.scale"),
        *head,
    ]


FAMILY = Family(
    ("gemma2",),
    build,
    names,
    prefix="model.",
    ignored=(r"rotary_emb\.inv_freq$", r"^lm_head\.weight$"),
)
