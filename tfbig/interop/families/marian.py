"""Marian (OPUS-MT): the first Transformer as it was, post-norm and sinusoidal, with a fixed bias.

Sources: Vaswani et al., 2017 (arXiv:1706.03762); Junczys-Dowmunt et al., 2018 (arXiv:1804.00344).
The bias of the logits is given, not trained: transformers holds it as a buffer. Positions are
computed; where a checkpoint holds their table, it is kept beside. Left out: LayerDrop; and that
PyTorch's embedding takes no gradient for the padding, with which Marian's decoder starts, too.
"""

import keras

from tfbig.interop.families.bart import PROJECTED, layers, stacks
from tfbig.interop.family import (
    Config,
    Family,
    architecture,
    field,
    option,
    rate,
)
from tfbig.interop.names import Name, linear
from tfbig.models import (
    Head,
    PostNorm,
    Seq2Seq,
    SinusoidalPositions,
    TiedHead,
    TokenFront,
)


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

    encoder, decoder = stacks(config, start, PROJECTED, PostNorm(norm, dropout))
    source = field(config, "vocab_size")
    target = source if _shared(config) else option(config, "decoder_vocab_size", source)
    bias = 0 if _bare(config) else target
    return Seq2Seq(
        front("front", source),
        encoder,
        decoder,
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
    around += layers("encoder", model, PROJECTED)
    return around + layers("decoder", model, PROJECTED)


FAMILY = Family(
    ("marian",),
    build,
    names,
    prefix="model.",
    ignored=(r"^lm_head\.weight$", r"(encoder|decoder)\.embed_tokens\.weight$"),
    carried=(r"embed_positions\.weight$",),
)
