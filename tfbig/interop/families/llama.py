"""Llama 2 and 3, Mistral, SmolLM, and Qwen 2 and 3, which differ in biases and norms of queries.

Sources: arXiv:2307.09288, arXiv:2407.21783, arXiv:2310.06825, arXiv:2407.10671, arXiv:2505.09388.
"""

import keras

from tfbig.interop.family import Config, Family, activation, field
from tfbig.interop.names import Name, each_layer, linear
from tfbig.interop.rope import rotary
from tfbig.interop.stored_tensor import CheckpointError
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


def build(config: Config) -> keras.Model:
    """The network of a config."""
    heads = field(config, "num_attention_heads")
    hidden_dim = field(config, "hidden_size")
    head_dim = config.get("head_dim") or hidden_dim // heads
    start = keras.initializers.RandomNormal(stddev=config.get("initializer_range", 0.02))
    norm = RMSNorm(config.get("rms_norm_eps", 1e-6))

    def block(window: int | None) -> Block:
        attention = Attention(
            heads,
            head_dim,
            config.get("num_key_value_heads") or heads,
            biases=biases(config),
            rotary=rotary(config, head_dim),
            sees=Causal(window),
            norm=norm if config["model_type"] == "qwen3" else None,
            dropout=config.get("attention_dropout") or 0.0,
            initializer=start,
        )
        feed_forward = GatedFeedForward(
            field(config, "intermediate_size"),
            activation(config.get("hidden_act", "silu")),
            use_bias=config.get("mlp_bias", False),
            initializer=start,
        )
        return Block(attention, feed_forward, PreNorm(norm))

    layers = field(config, "num_hidden_layers")
    vocabulary = field(config, "vocab_size")
    return CausalLM(
        TokenFront(vocabulary, hidden_dim, initializer=start),
        Transformer([block(window) for window in windows(config, layers)], layers, norm),
        TiedHead() if config.get("tie_word_embeddings") else Head(vocabulary, initializer=start),
        name=config["model_type"],
    )


def biases(config: Config) -> tuple[str, ...]:
    """The projections of the attention that have a bias."""
    if config["model_type"] == "qwen2":
        return ("query", "key", "value")
    return ("query", "key", "value", "output") if config.get("attention_bias") else ()


def windows(config: Config, layers: int) -> list[int | None]:
    """How far each layer sees; one entry where all see the same."""
    window = config.get("sliding_window")
    if config["model_type"] in ("qwen2", "qwen3"):
        if not config.get("use_sliding_window"):
            return [None]
        kinds = config.get("layer_types") or [
            "sliding_attention" if i >= config.get("max_window_layers", 28) else "full_attention"
            for i in range(layers)
        ]
        return [window if kind == "sliding_attention" else None for kind in kinds]
    return [window if config["model_type"] == "mistral" else None]


def names(config: Config, model: keras.Model) -> list[Name]:
    """The table of names."""
    with_bias = biases(config)
    ours, theirs = "transformer.blocks.{i}", "model.layers.{i}"
    rows = [
        Name(f"{theirs}.input_layernorm.weight", f"{ours}.attention_join.norm.scale"),
        Name(f"{theirs}.post_attention_layernorm.weight", f"{ours}.feed_forward_join.norm.scale"),
    ]
    for our, their in (("query", "q"), ("key", "k"), ("value", "v")):
        rows += linear(
            f"{theirs}.self_attn.{their}_proj", f"{ours}.attention.{our}", our in with_bias
        )
    rows += linear(
        f"{theirs}.self_attn.o_proj", f"{ours}.attention.output_projection", "output" in with_bias
    )
    for part in ("gate", "up", "down"):
        rows += linear(
            f"{theirs}.mlp.{part}_proj",
            f"{ours}.feed_forward.{part}",
            config.get("mlp_bias", False),
        )
    if config["model_type"] == "qwen3":
        rows += [
            Name(f"{theirs}.self_attn.q_norm.weight", f"{ours}.attention.query_norm.scale"),
            Name(f"{theirs}.self_attn.k_norm.weight", f"{ours}.attention.key_norm.scale"),
        ]
    around = [
        Name("model.embed_tokens.weight", "front.tokens.embeddings"),
        Name("model.norm.weight", "transformer.norm.scale"),
    ]
    if not config.get("tie_word_embeddings"):
        around += linear("lm_head", "head.logits")
    return around + each_layer(rows, len(model.transformer.blocks))


def config_of(model: keras.Model) -> dict:
    """The config.json of a network that `language_model` made: a Llama.

    Raises:
        CheckpointError: if it has other parts.
    """
    plain = isinstance(model, CausalLM) and isinstance(model.head, TiedHead)
    block = model.transformer.blocks[0] if plain else None
    if (
        block is None
        or type(block.feed_forward) is not GatedFeedForward
        or type(block.attention.rotary) is not Rotary
        or type(block.attention_join) is not PreNorm
        or block.attention.query_norm is not None
    ):
        raise CheckpointError(
            f"{model.name!r} was not loaded from a checkpoint and is not built as Llama is (as "
            f"language_model() builds): give save() the config of the family it belongs to."
        )
    first, second = block.attention.rotary.frequencies[:2] or (1.0, 1.0)
    # The frequencies are base^(-2i/dim): the second tells the base.
    base = (first / second) ** (block.attention.head_dim / 2)
    return {
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
        "rope_theta": round(base, 6),
        "hidden_act": "silu",
        "tie_word_embeddings": True,
        "attention_bias": False,
        "mlp_bias": False,
        "max_position_embeddings": 4096,
    }


FAMILY = Family(
    ("llama", "mistral", "qwen2", "qwen3"),
    build,
    names,
    prefix="model.",
    ignored=(r"rotary_emb\.inv_freq$", r"^lm_head\.weight$"),
)
