"""GPT-2: LayerNorm before each branch, learned positions, biases, one tensor for q, k and v.

Source: Radford et al., 2019, "Language models are unsupervised multitask learners".
"""

import keras

from tfbig.interop.family import Config, Family, activation, field
from tfbig.interop.names import Name, each_layer, layer_norm, linear
from tfbig.models import (
    Attention,
    Block,
    Causal,
    CausalLM,
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
    start = keras.initializers.RandomNormal(stddev=config.get("initializer_range", 0.02))
    norm = keras.layers.LayerNormalization(epsilon=config.get("layer_norm_epsilon", 1e-5))
    attention = Attention(
        heads,
        hidden_dim // heads,
        biases=("query", "key", "value", "output"),
        sees=Causal(),
        dropout=config.get("attn_pdrop", 0.1),
        initializer=start,
    )
    feed_forward = FeedForward(
        config.get("n_inner") or 4 * hidden_dim,
        activation(config.get("activation_function", "gelu_new")),
        initializer=start,
    )
    block = Block(attention, feed_forward, PreNorm(norm, config.get("resid_pdrop", 0.1)))
    vocabulary = field(config, "vocab_size")
    tied = config.get("tie_word_embeddings", True)
    return CausalLM(
        TokenFront(
            vocabulary,
            hidden_dim,
            LearnedPositions(field(config, "n_positions"), hidden_dim, initializer=start),
            dropout=config.get("embd_pdrop", 0.1),
            initializer=start,
        ),
        Transformer(block, field(config, "n_layer"), norm),
        TiedHead() if tied else Head(vocabulary, initializer=start),
        name="gpt2",
    )


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
    head = [] if config.get("tie_word_embeddings", True) else linear("lm_head", "head.logits")
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
