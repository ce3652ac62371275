"""GPT-2: LayerNorm before each branch, learned positions, biases, one tensor for q, k and v.

Source: Radford et al., 2019, "Language models are unsupervised multitask learners".
"""

import keras

from tfbig.interop.family import Config, Family, activation, field, head_dim, option, rate
from tfbig.interop.names import Name, each_layer, layer_norm, linear
from tfbig.models import (
    Attention,
    Block,
    Causal,
    CausalLM,
    DotProduct,
    FeedForward,
    Head,
    LearnedPositions,
    PreNorm,
    TiedHead,
    TokenFront,
    Transformer,
)


def build(config: Config) -> keras.Model:
    """The network of a config."""
    heads, hidden_dim = field(config, "n_head"), field(config, "n_embd")
    start = keras.initializers.RandomNormal(stddev=option(config, "initializer_range", 0.02))
    norm = keras.layers.LayerNormalization(epsilon=option(config, "layer_norm_epsilon", 1e-5))
    width = head_dim(hidden_dim, heads)

    def block(scale: float | None) -> Block:
        attention = Attention(
            heads,
            width,
            biases=("query", "key", "value", "output"),
            score=DotProduct(scale),
            sees=Causal(),
            dropout=rate(config, "attn_pdrop", 0.1),
            initializer=start,
        )
        feed_forward = FeedForward(
            option(config, "n_inner", 4 * hidden_dim),
            activation(option(config, "activation_function", "gelu_new")),
            initializer=start,
        )
        return Block(attention, feed_forward, PreNorm(norm, rate(config, "resid_pdrop", 0.1)))

    layers, vocabulary = field(config, "n_layer"), field(config, "vocab_size")
    positions = LearnedPositions(field(config, "n_positions"), hidden_dim, initializer=start)
    return CausalLM(
        TokenFront(
            vocabulary,
            hidden_dim,
            positions,
            dropout=rate(config, "embd_pdrop", 0.1),
            initializer=start,
        ),
        Transformer([block(scale) for scale in scales(config, width, layers)], layers, norm),
        TiedHead() if _tied(config) else Head(vocabulary, initializer=start),
        name="gpt2",
    )


def scales(config: Config, width: int, layers: int) -> list[float | None]:
    """What each layer's scores are multiplied by; one entry where it is the same for all.

    Args:
        config: says whether by 1 / sqrt(width), and whether by 1 / (number of the layer), too.
        width: of a head.
        layers: their number.

    >>> scales({"scale_attn_by_inverse_layer_idx": True}, 4, 3)
    [0.5, 0.25, 0.16666666666666666]
    """
    by_width = option(config, "scale_attn_weights", True)
    if option(config, "scale_attn_by_inverse_layer_idx", False):
        first = width**-0.5 if by_width else 1.0
        return [first / (i + 1) for i in range(layers)]
    return [None if by_width else 1.0]


def _tied(config: Config) -> bool:
    return option(config, "tie_word_embeddings", True)


def names(config: Config, model: keras.Model) -> list[Name]:
    """The table of names."""
    ours, theirs = "transformer.blocks.{i}", "transformer.h.{i}"
    three = tuple(f"{ours}.attention.{part}" for part in ("query", "key", "value"))
    rows = [
        *layer_norm(f"{theirs}.ln_1", f"{ours}.attention_join.norm"),
        # GPT-2's own layer, whose kernel is (in, out) already.
        Name(f"{theirs}.attn.c_attn.weight", tuple(f"{part}.kernel" for part in three)),
        Name(f"{theirs}.attn.c_attn.bias", tuple(f"{part}.bias" for part in three)),
        *_conv(f"{theirs}.attn.c_proj", f"{ours}.attention.output_projection"),
        *layer_norm(f"{theirs}.ln_2", f"{ours}.feed_forward_join.norm"),
        *_conv(f"{theirs}.mlp.c_fc", f"{ours}.feed_forward.up"),
        *_conv(f"{theirs}.mlp.c_proj", f"{ours}.feed_forward.down"),
    ]
    head = [] if _tied(config) else linear("lm_head", "head.logits")
    return [
        Name("transformer.wte.weight", "front.tokens.embeddings"),
        Name("transformer.wpe.weight", "front.positions.embeddings"),
        *each_layer(rows, len(model.transformer.blocks)),
        *layer_norm("transformer.ln_f", "transformer.norm"),
        *head,
    ]


def _conv(theirs: str, ours: str) -> list[Name]:
    return [Name(f"{theirs}.weight", f"{ours}.kernel"), Name(f"{theirs}.bias", f"{ours}.bias")]


FAMILY = Family(
    ("gpt2",),
    build,
    names,
    prefix="transformer.",
    ignored=(r"attn\.(masked_)?bias$", r"^lm_head\.weight$"),
)
