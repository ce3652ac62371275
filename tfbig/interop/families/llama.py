"""Llama 2 and 3, Mistral, SmolLM, and Qwen 2 and 3, which differ in biases and norms of queries.

Sources: arXiv:2307.09288, arXiv:2407.21783, arXiv:2310.06825, arXiv:2407.10671, arXiv:2505.09388.
"""

import math
from collections.abc import Sequence
from typing import Any

import keras

from tfbig.interop.families import decoder
from tfbig.interop.family import Config, Family, activation, field, option, optional, rate
from tfbig.interop.names import Name
from tfbig.interop.rope import rotary
from tfbig.interop.stored_tensor import CheckpointError, shown
from tfbig.models import (
    Attention,
    Block,
    Causal,
    CausalLM,
    GatedFeedForward,
    Head,
    PreNorm,
    RMSNorm,
    Rotary,
    TiedHead,
    TokenFront,
    Transformer,
)

ALL = ("query", "key", "value", "output")
_NO_LLAMA = (
    "{!r} was not loaded from a checkpoint, and not all of it can be said in the config.json of a "
    "Llama. Give save() the config of the family it belongs to (config=...)"
)


def build(config: Config) -> keras.Model:
    """The network of a config."""
    heads, hidden_dim = field(config, "num_attention_heads"), field(config, "hidden_size")
    head_dim, start = decoder.head_dim(config), decoder.start(config)
    norm = RMSNorm(option(config, "rms_norm_eps", 1e-6))

    def block(window: int | None) -> Block:
        attention = Attention(
            heads,
            head_dim,
            option(config, "num_key_value_heads", heads),
            biases=biases(config),
            rotary=rotary(config, head_dim),
            sees=Causal(window),
            norm=norm if config["model_type"] == "qwen3" else None,
            dropout=rate(config, "attention_dropout", 0.0),
            initializer=start,
        )
        feed_forward = GatedFeedForward(
            field(config, "intermediate_size"),
            activation(option(config, "hidden_act", "silu")),
            use_bias=option(config, "mlp_bias", False),
            initializer=start,
        )
        return Block(attention, feed_forward, PreNorm(norm))

    layers, vocabulary = field(config, "num_hidden_layers"), field(config, "vocab_size")
    return CausalLM(
        TokenFront(vocabulary, hidden_dim, initializer=start),
        Transformer([block(window) for window in windows(config, layers)], layers, norm),
        TiedHead() if decoder.tied(config) else Head(vocabulary, initializer=start),
        name=config["model_type"],
    )


def biases(config: Config) -> tuple[str, ...]:
    """The projections of the attention that have a bias."""
    if config["model_type"] == "qwen2":
        return ("query", "key", "value")
    return ALL if option(config, "attention_bias", False) else ()


def windows(config: Config, layers: int) -> list[int | None]:
    """How far each layer sees; one entry where all see the same."""
    if config["model_type"] in ("qwen2", "qwen3"):
        if not option(config, "use_sliding_window", False):
            return [None]
        first = option(config, "max_window_layers", 28, least=0)
        window = optional(config, "sliding_window", 4096)
        return decoder.layer_windows(config, layers, window, (i >= first for i in range(layers)))
    return [optional(config, "sliding_window", 4096) if config["model_type"] == "mistral" else None]


def names(config: Config, model: keras.Model) -> list[Name]:
    """The table of names."""
    rows = [
        *decoder.norm_rows(),
        *decoder.attention_rows(biases(config)),
        *decoder.gated_rows(option(config, "mlp_bias", False)),
    ]
    if config["model_type"] == "qwen3":
        rows += [
            Name(f"{decoder.THEIRS}.self_attn.{their}_norm.weight", f"{decoder.OURS}.{our}.scale")
            for their, our in (("q", "attention.query_norm"), ("k", "attention.key_norm"))
        ]
    return decoder.table(model, rows, not decoder.tied(config))


def config_of(model: keras.Model) -> dict[str, Any]:
    """The config.json of a network that was not loaded, such as `language_model` makes: a Llama.

    It is of the first block. So that nothing is lost, the network that it says is made once more
    (but for its weights), and must be the one that was given.

    Raises:
        CheckpointError: if the network has a part that a Llama has not; it names the first.
    """
    if not isinstance(model, CausalLM):
        raise CheckpointError(f"{_NO_LLAMA.format(model.name)}: it is a {type(model).__name__}.")
    block = model.transformer.blocks[0]
    for part, kind in (
        (block.attention.rotary, Rotary),
        (block.attention_join, PreNorm),
        (block.attention_join.norm, RMSNorm),
        (block.feed_forward, GatedFeedForward),
    ):
        if type(part) is not kind:
            raise CheckpointError(
                f"{_NO_LLAMA.format(model.name)}: it has a {type(part).__name__}, where a Llama "
                f"has a {kind.__name__}."
            )
    act = block.feed_forward.activation.__name__
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": model.front.vocabulary_size,
        "hidden_size": model.front.hidden_dim,
        "intermediate_size": block.feed_forward.intermediate_dim,
        "num_hidden_layers": len(model.transformer.blocks),
        "num_attention_heads": block.attention.num_heads,
        "num_key_value_heads": block.attention.num_key_value_heads,
        "head_dim": block.attention.head_dim,
        "rms_norm_eps": block.attention_join.norm.epsilon,
        "rope_theta": _base(block.attention.rotary.frequencies, block.attention.head_dim),
        "hidden_act": {"gelu_tanh": "gelu_pytorch_tanh"}.get(act, act),
        "tie_word_embeddings": isinstance(model.head, TiedHead),
        "attention_bias": bool(block.attention.biases),
        "mlp_bias": block.feed_forward.use_bias,
        "max_position_embeddings": 4096,
    }
    found = difference(model.get_config(), build(config).get_config())
    if found:
        raise CheckpointError(f"{_NO_LLAMA.format(model.name)}: {found}.")
    return config


def _base(frequencies: Sequence[float], head_dim: int) -> float:
    """The base of rotary frequencies, base^(-2i/dim), of which the second tells it."""
    if len(frequencies) < 2:
        return 10_000.0  # of a single pair all bases are the same
    return float(f"{(frequencies[0] / frequencies[1]) ** (head_dim / 2):.12g}")


def difference(ours: Any, theirs: Any, place: str = "") -> str | None:
    """Where two configs of Keras first say other networks; None: they compute the same.

    Names, dtypes, dropout and how weights are drawn are no part of it. Numbers may differ by 1e-9
    of their size: frequencies are computed anew.

    >>> difference({"name": "a", "norm": {"epsilon": 1e-5}}, {"name": "b", "norm": {"epsilon": 1}})
    'norm.epsilon is 1e-05, and a Llama has 1'
    """
    if isinstance(ours, dict) and isinstance(theirs, dict):
        keys = [*ours, *(key for key in theirs if key not in ours)]
        pairs = [(key, ours.get(key), theirs.get(key)) for key in keys if not _apart(key)]
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        pairs = [(str(i), *pair) for i, pair in enumerate(zip(ours, theirs, strict=True))]
    elif ours == theirs or (
        isinstance(ours, float) and isinstance(theirs, float) and math.isclose(ours, theirs)
    ):
        return None
    else:
        return f"{place or 'it'} is {shown(ours)}, and a Llama has {shown(theirs)}"
    found = (difference(a, b, f"{place}.{key}".removeprefix(".")) for key, a, b in pairs)
    return next((one for one in found if one), None)


def _apart(key: str) -> bool:
    return key in ("name", "dtype", "trainable", "seed") or key.endswith(("initializer", "dropout"))


FAMILY = Family(
    ("llama", "mistral", "qwen2", "qwen3"),
    build,
    names,
    prefix="model.",
    ignored=decoder.IGNORED,
)
