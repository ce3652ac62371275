"""CLIP: an image and a text in one space, by two Transformers with LayerNorm before each branch.

Source: Radford et al., 2021 (arXiv:2103.00020). The text is causal, and its vector is the state at
the token that ends it. Of the image it is that of the first token. Both are projected without bias.
Images are `(batch, height, width, channels)`, scaled as preprocessor_config.json says.

The norm after the last block of the image is applied to all tokens and not only to the first, which
is the one that is used. Left out: one half alone (CLIPTextModel, CLIPVisionModelWithProjection).
"""

from collections.abc import Mapping
from typing import Any

import keras

from tfbig.interop.families.vit import side
from tfbig.interop.family import Config, Family, activation, architecture, head_dim, option, rate
from tfbig.interop.names import CONV2D, Name, each_layer, layer_norm, linear
from tfbig.interop.stored_tensor import CheckpointError, shown
from tfbig.models import (
    Attention,
    Block,
    Causal,
    DualEncoder,
    EndToken,
    Everywhere,
    FeedForward,
    FirstToken,
    LearnedPositions,
    PatchFront,
    PreNorm,
    TextEncoder,
    TokenFront,
    Transformer,
    VisionTransformer,
)


def build(config: Config) -> keras.Model:
    """The network of a config."""
    if architecture(config) not in ("", "CLIPModel"):
        raise CheckpointError(
            f"config.json: a network {shown(architecture(config))} is not read, and of this family "
            f"is CLIPModel, the image and the text together."
        )
    projection_dim = option(config, "projection_dim", 512)
    return DualEncoder(
        _vision(half(config, "vision"), projection_dim),
        _text(half(config, "text"), projection_dim),
        option(config, "logit_scale_init_value", 2.6592, least=-100, most=100),
        name="clip",
    )


def half(config: Config, kind: str) -> Config:
    """The config of one half; the first checkpoints have it under another name, which counts.

    >>> half({"text_config": {}, "text_config_dict": {"hidden_size": 64}}, "text")
    {'hidden_size': 64}
    """
    first: Config = option(config, f"{kind}_config_dict", {})
    return first or option(config, f"{kind}_config", {})


def _vision(config: Config, projection_dim: int) -> keras.Model:
    hidden_dim = option(config, "hidden_size", 768)
    front = PatchFront(
        side(config, "image_size", 224),
        side(config, "patch_size", 32),
        hidden_dim,
        option(config, "num_channels", 3),
        use_bias=False,
        norm=_norm(config),
        initializer=_start(config),
    )
    sizes = {"hidden": hidden_dim, "intermediate": 3072, "heads": 12}
    return VisionTransformer(
        front,
        _transformer(config, sizes, Everywhere()),
        FirstToken(name="pooling"),
        _projection(config, hidden_dim, projection_dim),
        name="vision",
    )


def _text(config: Config, projection_dim: int) -> keras.Model:
    hidden_dim = option(config, "hidden_size", 512)
    front = TokenFront(
        option(config, "vocab_size", 49408),
        hidden_dim,
        LearnedPositions(
            option(config, "max_position_embeddings", 77), hidden_dim, initializer=_start(config)
        ),
        initializer=_start(config),
    )
    end_id = option(config, "eos_token_id", 49407, least=0)
    sizes = {"hidden": hidden_dim, "intermediate": 2048, "heads": 8}
    return TextEncoder(
        front,
        _transformer(config, sizes, Causal()),
        # 2 stood in the first configs by mistake (transformers, pull request 24773).
        EndToken(None if end_id == 2 else end_id, name="pooling"),
        _projection(config, hidden_dim, projection_dim),
        name="text",
    )


def _transformer(config: Config, sizes: Mapping[str, int], sees: Any) -> Transformer:
    heads = option(config, "num_attention_heads", sizes["heads"])
    attention = Attention(
        heads,
        head_dim(sizes["hidden"], heads),
        biases=("query", "key", "value", "output"),
        sees=sees,
        dropout=rate(config, "attention_dropout", 0.0),
        initializer=_start(config),
    )
    feed_forward = FeedForward(
        option(config, "intermediate_size", sizes["intermediate"]),
        activation(option(config, "hidden_act", "quick_gelu")),
        initializer=_start(config),
    )
    block = Block(attention, feed_forward, PreNorm(_norm(config)))
    return Transformer(block, option(config, "num_hidden_layers", 12), _norm(config))


def _norm(config: Config) -> keras.layers.LayerNormalization:
    return keras.layers.LayerNormalization(epsilon=option(config, "layer_norm_eps", 1e-5))


def _start(config: Config) -> keras.Initializer:
    return keras.initializers.RandomNormal(stddev=option(config, "initializer_range", 0.02))


def _projection(config: Config, hidden_dim: int, units: int) -> keras.layers.Dense:
    start = keras.initializers.RandomNormal(stddev=hidden_dim**-0.5)
    return keras.layers.Dense(units, use_bias=False, kernel_initializer=start, name="head")


def names(config: Config, model: keras.Model) -> list[Name]:
    """The table of names."""
    text, vision = "text_model.embeddings", "vision_model.embeddings"
    return [
        Name("logit_scale", "log_scale"),
        Name(f"{text}.token_embedding.weight", "text.front.tokens.embeddings"),
        Name(f"{text}.position_embedding.weight", "text.front.positions.embeddings"),
        *_layers("text", model.text),
        *layer_norm("text_model.final_layer_norm", "text.transformer.norm"),
        *linear("text_projection", "text.head"),
        Name(f"{vision}.class_embedding", "vision.front.whole"),
        Name(f"{vision}.patch_embedding.weight", "vision.front.patches.kernel", CONV2D),
        Name(f"{vision}.position_embedding.weight", "vision.front.positions"),
        # So it is spelled there.
        *layer_norm("vision_model.pre_layrnorm", "vision.front.norm"),
        *_layers("vision", model.vision),
        *layer_norm("vision_model.post_layernorm", "vision.transformer.norm"),
        *linear("visual_projection", "vision.head"),
    ]


def _layers(kind: str, encoder: keras.Model) -> list[Name]:
    ours, theirs = f"{kind}.transformer.blocks.{{i}}", f"{kind}_model.encoder.layers.{{i}}"
    rows = [
        *layer_norm(f"{theirs}.layer_norm1", f"{ours}.attention_join.norm"),
        *layer_norm(f"{theirs}.layer_norm2", f"{ours}.feed_forward_join.norm"),
    ]
    for their, our in (
        ("self_attn.q_proj", "attention.query"),
        ("self_attn.k_proj", "attention.key"),
        ("self_attn.v_proj", "attention.value"),
        ("self_attn.out_proj", "attention.output_projection"),
        ("mlp.fc1", "feed_forward.up"),
        ("mlp.fc2", "feed_forward.down"),
    ):
        rows += linear(f"{theirs}.{their}", f"{ours}.{our}", bias=True)
    return each_layer(rows, len(encoder.transformer.blocks))


FAMILY = Family(("clip",), build, names, ignored=(r"position_ids$",))
