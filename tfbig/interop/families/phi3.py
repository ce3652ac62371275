"""Phi-3 and Phi-4 mini: q, k, v in one tensor, gate and up in one, part of each head turned.

Source: arXiv:2404.14219; the long rotary positions are LongRoPE's, arXiv:2402.13753. The dropout of
the token vectors (`embd_pdrop`), which the config names and `transformers` leaves out, is done.
"""

from typing import Any

import keras

from tfbig.interop.families import decoder
from tfbig.interop.family import Config, Family, activation, field, option, rate
from tfbig.interop.names import LINEAR, Name, linear
from tfbig.interop.rope import rope_fields, rotary
from tfbig.models import (
    Attention,
    Block,
    Causal,
    CausalLM,
    GatedFeedForward,
    Head,
    PreNorm,
    RMSNorm,
    TiedHead,
    TokenFront,
    Transformer,
)


def build(config: Config) -> keras.Model:
    """The network of a config."""
    heads = field(config, "num_attention_heads")
    hidden_dim = field(config, "hidden_size")
    head_dim, start = decoder.head_dim(config), decoder.start(config)
    norm = RMSNorm(option(config, "rms_norm_eps", 1e-5))
    attention = Attention(
        heads,
        head_dim,
        option(config, "num_key_value_heads", heads),
        rotary=rotary(with_long_positions(config), head_dim),
        sees=Causal(option(config, "sliding_window", 0) or None),
        dropout=rate(config, "attention_dropout", 0.0),
        initializer=start,
    )
    feed_forward = GatedFeedForward(
        field(config, "intermediate_size"),
        activation(option(config, "hidden_act", "silu")),
        initializer=start,
    )
    vocabulary = field(config, "vocab_size")
    return CausalLM(
        TokenFront(
            vocabulary, hidden_dim, dropout=rate(config, "embd_pdrop", 0.0), initializer=start
        ),
        Transformer(
            Block(attention, feed_forward, PreNorm(norm, rate(config, "resid_pdrop", 0.0))),
            field(config, "num_hidden_layers"),
            norm,
        ),
        TiedHead() if decoder.tied(config) else Head(vocabulary, initializer=start),
        name="phi3",
    )


def with_long_positions(config: Config) -> dict[str, Any]:
    """The config with what Phi-3's says of rotary positions in its own way, as others say it.

    Its first configs call LongRoPE "yarn" (the paper's other method) and give the length of the
    short rows beside it, 4096 if not.

    >>> old = {"rope_scaling": {"type": "yarn", "short_factor": [1.0], "long_factor": [2.0]}}
    >>> with_long_positions(old)["rope_parameters"]["rope_type"]
    'longrope'
    """
    fields = rope_fields(config)
    if fields["rope_type"] == "yarn":
        fields["rope_type"] = "longrope"
    fields.setdefault("original_max_position_embeddings", 4096)
    return {**config, "rope_scaling": None, "rope_parameters": fields}


def names(config: Config, model: keras.Model) -> list[Name]:
    """The table of names."""
    ours, theirs = decoder.OURS, decoder.THEIRS
    three = tuple(f"{ours}.attention.{part}.kernel" for part in ("query", "key", "value"))
    two = tuple(f"{ours}.feed_forward.{part}.kernel" for part in ("gate", "up"))
    rows = [
        *decoder.norm_rows(),
        Name(f"{theirs}.self_attn.qkv_proj.weight", three, LINEAR),
        *linear(f"{theirs}.self_attn.o_proj", f"{ours}.attention.output_projection"),
        Name(f"{theirs}.mlp.gate_up_proj.weight", two, LINEAR),
        *linear(f"{theirs}.mlp.down_proj", f"{ours}.feed_forward.down"),
    ]
    return decoder.table(model, rows, not decoder.tied(config))


FAMILY = Family(
    ("phi3",),
    build,
    names,
    prefix="model.",
    ignored=decoder.IGNORED,
)
