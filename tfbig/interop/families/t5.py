"""T5 1.0 and 1.1 (Flan-T5): relative positions, RMSNorm before each branch, scores not scaled.

Source: Raffel et al., 2020 (arXiv:1910.10683). 1.1 has a gated feed-forward, and a head of its own
whose input is not rescaled. transformers 5 writes `tie_word_embeddings: true` for it all the same,
and tells the two apart by `scale_decoder_outputs`.

Left out: T5's own start of the queries, which is smaller by sqrt(d_kv) than that of the other
kernels: draw them anew before a training from scratch. An encoder alone (T5EncoderModel).
"""

import keras

from tfbig.interop.family import Config, Family, activation, field, option, rate
from tfbig.interop.names import Name, each_layer, linear
from tfbig.models import (
    Attention,
    Block,
    Causal,
    DotProduct,
    Everywhere,
    FeedForward,
    GatedFeedForward,
    Head,
    PreNorm,
    RelativeBias,
    RMSNorm,
    Seq2Seq,
    TiedHead,
    TokenFront,
    Transformer,
)
from tfbig.models.masks import Sees
from tfbig.models.norms import NormThenDropout

# Ours and theirs.
Pairs = tuple[tuple[str, str], ...]
PROJECTIONS: Pairs = (("query", "q"), ("key", "k"), ("value", "v"), ("output_projection", "o"))


def build(config: Config) -> keras.Model:
    """The network of a config."""
    hidden_dim, heads = field(config, "d_model"), field(config, "num_heads")
    dropout, factor = rate(config, "dropout_rate", 0.1), option(config, "initializer_factor", 1.0)
    start = keras.initializers.VarianceScaling(factor**2, "fan_in", "untruncated_normal")
    norm = RMSNorm(option(config, "layer_norm_epsilon", 1e-6))
    # The encoder has two halves, each with buckets of one distance and of several.
    buckets = option(config, "relative_attention_num_buckets", 32, least=4)

    def attention(sees: Sees) -> Attention:
        return Attention(
            heads,
            field(config, "d_kv"),
            score=DotProduct(scale=1.0),
            sees=sees,
            dropout=dropout,
            initializer=start,
        )

    def stack(name: str, sees: Sees, cross: Attention | None, layers: int) -> Transformer:
        return Transformer(
            Block(attention(sees), feed_forward, PreNorm(norm, dropout), cross),
            layers,
            NormThenDropout(norm, dropout),
            RelativeBias(
                heads,
                buckets,
                # Buckets of one distance each, and behind them those that grow up to this.
                option(config, "relative_attention_max_distance", 128, least=buckets // 2 + 1),
                bidirectional=name == "encoder",
            ),
            name=name,
        )

    kind = option(config, "feed_forward_proj", "relu")
    feed_forward = (GatedFeedForward if _gated(config) else FeedForward)(
        field(config, "d_ff"),
        activation("gelu_new" if kind == "gated-gelu" else kind.removeprefix("gated-")),
        use_bias=False,
        dropout=dropout,
        initializer=start,
    )
    layers, vocabulary = field(config, "num_layers"), field(config, "vocab_size")
    tokens = keras.initializers.RandomNormal(stddev=factor)
    return Seq2Seq(
        TokenFront(vocabulary, hidden_dim, dropout=dropout, initializer=tokens),
        stack("encoder", Everywhere(), None, layers),
        stack(
            "decoder",
            Causal(),
            attention(Everywhere()),
            option(config, "num_decoder_layers", layers),
        ),
        TiedHead(hidden_dim**-0.5) if _tied(config) else Head(vocabulary, initializer=tokens),
        name="t5",
    )


def _gated(config: Config) -> bool:
    return option(config, "feed_forward_proj", "relu").startswith("gated-")


def _tied(config: Config) -> bool:
    """Whether the head is the table of tokens, on rescaled states: version 1.0."""
    return option(config, "scale_decoder_outputs", option(config, "tie_word_embeddings", True))


def names(config: Config, model: keras.Model) -> list[Name]:
    """The table of names."""
    around = [Name("shared.weight", "front.tokens.embeddings")]
    if not _tied(config):
        around += linear("lm_head", "head.logits")
    inputs: Pairs = (("gate", "wi_0"), ("up", "wi_1")) if _gated(config) else (("up", "wi"),)
    parts = (*inputs, ("down", "wo"))
    for stack in ("encoder", "decoder"):
        branches: list[tuple[str, str, Pairs]] = [("attention", "SelfAttention", PROJECTIONS)]
        if stack == "decoder":
            branches += [("cross_attention", "EncDecAttention", PROJECTIONS)]
        branches += [("feed_forward", "DenseReluDense", parts)]
        rows = []
        for number, (ours, theirs, layers) in enumerate(branches):
            layer, block = f"{stack}.block.{{i}}.layer.{number}", f"{stack}.blocks.{{i}}"
            join = "cross_join" if ours == "cross_attention" else f"{ours}_join"
            rows += [Name(f"{layer}.layer_norm.weight", f"{block}.{join}.norm.scale")]
            for our, their in layers:
                rows += linear(f"{layer}.{theirs}.{their}", f"{block}.{ours}.{our}")
        # The first block holds the positions that all of its stack share.
        first = f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        around += [
            Name(first, f"{stack}.position_bias.embeddings"),
            Name(f"{stack}.final_layer_norm.weight", f"{stack}.norm.norm.scale"),
            *each_layer(rows, getattr(model, stack).num_layers),
        ]
    return around


FAMILY = Family(
    ("t5",),
    build,
    names,
    ignored=(
        r"^(encoder|decoder)\.embed_tokens\.weight$",
        r"^lm_head\.weight$",
        # Of old checkpoints, never read by any code.
        r"EncDecAttention\.relative_attention_bias\.weight$",
    ),
)
