"""Marian (OPUS-MT): the first Transformer as it was, post-norm and sinusoidal, with a fixed bias.

Sources: Vaswani et al., 2017 (arXiv:1706.03762); Junczys-Dowmunt et al., 2018 (arXiv:1804.00344).
The bias of the logits is given, not trained: transformers holds it as a buffer. Positions are
computed; where a checkpoint holds their table, it is kept beside. Left out: LayerDrop; and that
PyTorch's embedding takes no gradient for the padding, with which Marian's decoder starts, too.
"""

import keras

from tfbig.interop.family import (
    Config,
    Family,
    activation,
    architecture,
    field,
    head_dim,
    option,
    rate,
)
from tfbig.interop.names import Name, each_layer, layer_norm, linear
from tfbig.models import (
    Attention,
    Block,
    Causal,
    Everywhere,
    FeedForward,
    Head,
    PostNorm,
    Seq2Seq,
    SinusoidalPositions,
    TiedHead,
    TokenFront,
    Transformer,
)
from tfbig.models.masks import Sees

PROJECTIONS = (("query", "q"), ("key", "k"), ("value", "v"), ("output", "out"))


def build(config: Config) -> keras.Model:
    """The network of a config."""
    hidden_dim, dropout = field(config, "d_model"), rate(config, "dropout", 0.1)
    start = keras.initializers.RandomNormal(stddev=option(config, "init_std", 0.02))
    norm = keras.layers.LayerNormalization(epsilon=1e-5)

    def front(name: str, vocabulary: int) -> TokenFront:
        return TokenFront(
            vocabulary,
            hidden_dim,
            SinusoidalPositions(hidden_dim),
            scale=hidden_dim**0.5 if option(config, "scale_embedding", False) else 1.0,
            dropout=dropout,
            initializer=start,
            name=name,
        )

    def attention(stack: str, sees: Sees) -> Attention:
        heads = field(config, f"{stack}_attention_heads")
        return Attention(
            heads,
            head_dim(hidden_dim, heads),
            biases=[ours for ours, _ in PROJECTIONS],
            sees=sees,
            dropout=rate(config, "attention_dropout", 0.0),
            initializer=start,
        )

    def stack(name: str, sees: Sees, cross: Attention | None) -> Transformer:
        feed_forward = FeedForward(
            field(config, f"{name}_ffn_dim"),
            activation(option(config, "activation_function", "gelu")),
            dropout=rate(config, "activation_dropout", 0.0),
            initializer=start,
        )
        block = Block(attention(name, sees), feed_forward, PostNorm(norm, dropout), cross)
        return Transformer(block, field(config, f"{name}_layers"), name=name)

    source = field(config, "vocab_size")
    target = source if _shared(config) else option(config, "decoder_vocab_size", source)
    bias = 0 if _bare(config) else target
    return Seq2Seq(
        front("front", source),
        stack("encoder", Everywhere(), None),
        stack("decoder", Causal(), attention("decoder", Everywhere())),
        # Not trainable: its bias is all that it has.
        TiedHead(bias_size=bias, trainable=False)
        if _tied(config)
        else Head(target, use_bias=bias > 0, initializer=start),
        None if _shared(config) else front("decoder_front", target),
        name="marian",
    )


def _shared(config: Config) -> bool:
    return option(config, "share_encoder_decoder_embeddings", True)


def _tied(config: Config) -> bool:
    return option(config, "tie_word_embeddings", True)


def _bare(config: Config) -> bool:
    return architecture(config) == "MarianModel"


def names(config: Config, model: keras.Model) -> list[Name]:
    """The table of names."""
    if _shared(config):
        around = [Name("model.shared.weight", "front.tokens.embeddings")]
    else:
        around = [
            Name("model.encoder.embed_tokens.weight", "front.tokens.embeddings"),
            Name("model.decoder.embed_tokens.weight", "decoder_front.tokens.embeddings"),
        ]
    if not _tied(config):
        around += linear("lm_head", "head.logits")
    if not _bare(config):
        bias = "head.bias" if _tied(config) else "head.logits.bias"
        around += [Name("final_logits_bias", bias, ones=1)]
    biased = [ours for ours, _ in PROJECTIONS]
    return around + bart_layers("encoder", model, biased) + bart_layers("decoder", model, biased)


def bart_layers(stack: str, model: keras.Model, biased: list[str]) -> list[Name]:
    """The rows of the layers of an encoder or decoder, named as BART's (Marian, Whisper).

    Args:
        stack: "encoder" or "decoder".
        model: the network.
        biased: the projections that have a bias.
    """
    ours, theirs = f"{stack}.blocks.{{i}}", f"model.{stack}.layers.{{i}}"
    branches = [("attention", "attention_join", "self_attn")]
    if stack == "decoder":
        branches += [("cross_attention", "cross_join", "encoder_attn")]
    rows = []
    for branch, join, their in branches:
        for projection, short in PROJECTIONS:
            layer = "output_projection" if projection == "output" else projection
            rows += linear(
                f"{theirs}.{their}.{short}_proj",
                f"{ours}.{branch}.{layer}",
                projection in biased,
            )
        rows += layer_norm(f"{theirs}.{their}_layer_norm", f"{ours}.{join}.norm")
    rows += linear(f"{theirs}.fc1", f"{ours}.feed_forward.up", bias=True)
    rows += linear(f"{theirs}.fc2", f"{ours}.feed_forward.down", bias=True)
    rows += layer_norm(f"{theirs}.final_layer_norm", f"{ours}.feed_forward_join.norm")
    return each_layer(rows, getattr(model, stack).num_layers)


FAMILY = Family(
    ("marian",),
    build,
    names,
    prefix="model.",
    ignored=(r"^lm_head\.weight$", r"(encoder|decoder)\.embed_tokens\.weight$"),
    carried=(r"embed_positions\.weight$",),
)
