"""DistilBERT: BERT without types of tokens and without a pooler, under names of its own.

Source: Sanh et al., 2019 (arXiv:1910.01108). See `bert.py` for what a checkpoint becomes and what
is left out. A table of sinusoidal positions is read as it was saved, and not trained.
"""

import keras

from tfbig.interop.families import bert
from tfbig.interop.family import Config, Family, activation, head_dim, num_classes, option, rate
from tfbig.interop.names import Name, each_layer, layer_norm, linear
from tfbig.models import (
    Attention,
    Block,
    Classifier,
    FeedForward,
    LearnedPositions,
    PostNorm,
    TiedHead,
    TokenFront,
    Transform,
    Transformer,
)

_EPSILON = 1e-12  # fixed in its code


def build(config: Config) -> keras.Model:
    """The network of a config."""
    # Its config calls the width of the states `dim`, and that of the feed-forward `hidden_dim`.
    dim, dropout = option(config, "dim", 768), rate(config, "dropout", 0.1)
    heads = option(config, "n_heads", 12)
    act = activation(option(config, "activation", "gelu"))
    start = bert.start(config)
    norm = keras.layers.LayerNormalization(epsilon=_EPSILON)
    attention = Attention(
        heads,
        head_dim(dim, heads),
        biases=("query", "key", "value", "output"),
        dropout=rate(config, "attention_dropout", 0.1),
        initializer=start,
    )
    feed_forward = FeedForward(
        option(config, "hidden_dim", 4 * 768), act, initializer=start, output_dropout=dropout
    )
    # No dropout in the joins: the attention's branch has none.
    block = Block(attention, feed_forward, PostNorm(norm))
    positions = LearnedPositions(
        option(config, "max_position_embeddings", 512),
        dim,
        initializer=start,
        trainable=not option(config, "sinusoidal_pos_embds", False),
    )
    front = TokenFront(
        option(config, "vocab_size", 30522),
        dim,
        positions,
        norm=norm,
        dropout=dropout,
        initializer=start,
    )
    return bert.assembled(
        config,
        front,
        Transformer(block, option(config, "n_layers", 6)),
        TiedHead(bias_size=front.vocabulary_size, transform=Transform(dim, act, norm)),
        Classifier(
            num_classes(config), Transform(dim, "relu"), rate(config, "seq_classif_dropout", 0.2)
        ),
    )


def names(config: Config, model: keras.Model) -> list[Name]:
    """The table of names."""
    kind = bert.task(config)
    prefix = "" if kind == "states" else "distilbert."
    ours, theirs = "transformer.blocks.{i}", prefix + "transformer.layer.{i}"
    rows = [
        *layer_norm(f"{theirs}.sa_layer_norm", f"{ours}.attention_join.norm"),
        *layer_norm(f"{theirs}.output_layer_norm", f"{ours}.feed_forward_join.norm"),
    ]
    for their, our in (
        ("attention.q_lin", "attention.query"),
        ("attention.k_lin", "attention.key"),
        ("attention.v_lin", "attention.value"),
        ("attention.out_lin", "attention.output_projection"),
        ("ffn.lin1", "feed_forward.up"),
        ("ffn.lin2", "feed_forward.down"),
    ):
        rows += linear(f"{theirs}.{their}", f"{ours}.{our}", bias=True)
    table = [
        Name(f"{prefix}embeddings.word_embeddings.weight", "front.tokens.embeddings"),
        Name(f"{prefix}embeddings.position_embeddings.weight", "front.positions.embeddings"),
        *layer_norm(f"{prefix}embeddings.LayerNorm", "front.norm"),
        *each_layer(rows, len(model.transformer.blocks)),
    ]
    if kind == "tokens":
        table += [
            Name("vocab_projector.bias", "head.bias"),
            *linear("vocab_transform", "head.transform.dense", bias=True),
            *layer_norm("vocab_layer_norm", "head.transform.norm"),
        ]
    if kind == "classes":
        table += linear("pre_classifier", "head.transform.dense", bias=True)
        table += linear("classifier", "head.logits", bias=True)
    return table


FAMILY = Family(
    ("distilbert",),
    build,
    names,
    prefix="distilbert.",
    ignored=(bert.POSITION_IDS, r"^vocab_projector\.weight$"),
    carried=(r"^vocab_", r"^(pre_)?classifier\."),
    aliases=bert.ALIASES,
)
