"""What Marian and Whisper share: encoder and decoder, with BART's fields and names.

Source: Lewis et al., 2019 (arXiv:1910.13461).
"""

from collections.abc import Sequence
from typing import Any

import keras

from tfbig.interop.family import Config, activation, field, head_dim, option, rate
from tfbig.interop.names import Name, each_layer, layer_norm, linear
from tfbig.models import Attention, Block, Causal, Everywhere, FeedForward, PreNorm, Transformer
from tfbig.models.masks import Sees

PROJECTIONS = (("query", "q"), ("key", "k"), ("value", "v"), ("output", "out"))
PROJECTED = [ours for ours, _ in PROJECTIONS]


def stacks(
    config: Config, start: Any, biases: Sequence[str], join: PreNorm, norm: Any = None
) -> tuple[Transformer, Transformer]:
    """The encoder and the decoder.

    Args:
        config: what config.json says.
        start: the initializer of the kernels.
        biases: the projections of attention that have one.
        join: a part: how a branch joins the stream.
        norm: a part after the last block, or None.
    """

    def attention(stack: str, sees: Sees) -> Attention:
        heads = field(config, f"{stack}_attention_heads")
        return Attention(
            heads,
            head_dim(field(config, "d_model"), heads),
            biases=biases,
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
        block = Block(attention(name, sees), feed_forward, join, cross)
        return Transformer(block, field(config, f"{name}_layers"), norm, name=name)

    cross = attention("decoder", Everywhere())
    return stack("encoder", Everywhere(), None), stack("decoder", Causal(), cross)


def layers(stack: str, model: keras.Model, biased: list[str]) -> list[Name]:
    """The rows of the layers of an encoder or decoder, named as BART's.

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
