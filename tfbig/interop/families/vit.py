"""ViT: images as patches, LayerNorm before each branch.

Source: Dosovitskiy et al., 2020 (arXiv:2010.11929). ViTModel gives states, and its pooler is kept
and saved again; ViTForImageClassification gives logits. Images are `(batch, height, width,
channels)`, scaled as preprocessor_config.json says. Left out: images that are no square, positions
that are interpolated to another size, masked images.
"""

import keras

from tfbig.interop.family import (
    Config,
    Family,
    activation,
    architecture,
    head_dim,
    num_classes,
    option,
    rate,
)
from tfbig.interop.names import CONV2D, Name, each_layer, layer_norm, linear
from tfbig.interop.stored_tensor import CheckpointError, shown
from tfbig.models import (
    Attention,
    Block,
    Classifier,
    FeedForward,
    FirstToken,
    PatchFront,
    PreNorm,
    Transformer,
    VisionTransformer,
)

_CLASSES = "ViTForImageClassification"


def build(config: Config) -> keras.Model:
    """The network of a config."""
    if architecture(config) not in ("", "ViTModel", _CLASSES):
        raise CheckpointError(
            f"config.json: a network {shown(architecture(config))} is not read, and of this family "
            f"are ViTModel and {_CLASSES}. To read its encoder alone, name ViTModel there."
        )
    hidden_dim = option(config, "hidden_size", 768)
    heads = option(config, "num_attention_heads", 12)
    dropout = rate(config, "hidden_dropout_prob", 0.0)
    start = keras.initializers.TruncatedNormal(stddev=option(config, "initializer_range", 0.02))
    norm = keras.layers.LayerNormalization(epsilon=option(config, "layer_norm_eps", 1e-12))
    attention = Attention(
        heads,
        head_dim(hidden_dim, heads),
        biases=("query", "key", "value", "output") if _has_bias(config) else ("output",),
        dropout=rate(config, "attention_probs_dropout_prob", 0.0),
        initializer=start,
    )
    feed_forward = FeedForward(
        option(config, "intermediate_size", 3072),
        activation(option(config, "hidden_act", "gelu")),
        initializer=start,
    )
    front = PatchFront(
        side(config, "image_size", 224),
        side(config, "patch_size", 16),
        hidden_dim,
        option(config, "num_channels", 3),
        dropout=dropout,
        initializer=start,
    )
    block = Block(attention, feed_forward, PreNorm(norm, dropout))
    with_head = architecture(config) == _CLASSES
    return VisionTransformer(
        front,
        Transformer(block, option(config, "num_hidden_layers", 12), norm),
        FirstToken(name="pooling") if with_head else None,
        Classifier(num_classes(config)) if with_head else None,
        name="vit",
    )


def _has_bias(config: Config) -> bool:
    return option(config, "qkv_bias", True)


def side(config: Config, name: str, default: int) -> int:
    """The side of a square, which a config gives as a number or as height and width.

    Raises:
        CheckpointError: if it is no square.

    >>> side({"image_size": [224, 224]}, "image_size", 224), side({}, "patch_size", 16)
    (224, 16)
    """
    value = config.get(name)
    if isinstance(value, list | tuple) and len(value) == 2 and value[0] == value[1]:
        value = value[0]
    return option({name: value}, name, default)


def names(config: Config, model: keras.Model) -> list[Name]:
    """The table of names: those of files. A module of transformers 5 has others: `aliases`."""
    with_head = architecture(config) == _CLASSES
    prefix = "vit." if with_head else ""
    ours, theirs = "transformer.blocks.{i}", prefix + "encoder.layer.{i}"
    rows = [
        *layer_norm(f"{theirs}.layernorm_before", f"{ours}.attention_join.norm"),
        *layer_norm(f"{theirs}.layernorm_after", f"{ours}.feed_forward_join.norm"),
        *linear(f"{theirs}.attention.output.dense", f"{ours}.attention.output_projection", True),
        *linear(f"{theirs}.intermediate.dense", f"{ours}.feed_forward.up", True),
        *linear(f"{theirs}.output.dense", f"{ours}.feed_forward.down", True),
    ]
    for part in ("query", "key", "value"):
        rows += linear(
            f"{theirs}.attention.attention.{part}", f"{ours}.attention.{part}", _has_bias(config)
        )
    embeddings = f"{prefix}embeddings"
    return [
        Name(f"{embeddings}.cls_token", "front.whole", ones=2),
        Name(f"{embeddings}.position_embeddings", "front.positions", ones=1),
        Name(f"{embeddings}.patch_embeddings.projection.weight", "front.patches.kernel", CONV2D),
        Name(f"{embeddings}.patch_embeddings.projection.bias", "front.patches.bias"),
        *each_layer(rows, len(model.transformer.blocks)),
        *layer_norm(f"{prefix}layernorm", "transformer.norm"),
        *(linear("classifier", "head.logits", bias=True) if with_head else []),
    ]


FAMILY = Family(
    ("vit",),
    build,
    names,
    prefix="vit.",
    carried=(r"^(vit\.)?pooler\.", r"^classifier\."),
    aliases=(
        (r"^(vit\.)?layers\.", r"\1encoder.layer."),
        (r"\.attention\.q_proj\.", ".attention.attention.query."),
        (r"\.attention\.k_proj\.", ".attention.attention.key."),
        (r"\.attention\.v_proj\.", ".attention.attention.value."),
        (r"\.attention\.o_proj\.", ".attention.output.dense."),
        (r"\.mlp\.fc1\.", ".intermediate.dense."),
        (r"\.mlp\.fc2\.", ".output.dense."),
    ),
)
