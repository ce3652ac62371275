"""What the decoders that came of Llama share: Mistral, Qwen, Mixtral, Phi-3 and Gemma 2.

Each family's file says what is its own; here are the width of a head, the windows of the layers,
the head over the vocabulary, and the rows of the table of names that all of them have.
"""

from collections.abc import Collection, Iterable

import keras

from tfbig.interop import family
from tfbig.interop.family import Config, field, option
from tfbig.interop.names import Name, each_layer, linear
from tfbig.interop.stored_tensor import CheckpointError, shown

IGNORED = (r"rotary_emb\.inv_freq$", r"^lm_head\.weight$")
OURS, THEIRS = "transformer.blocks.{i}", "model.layers.{i}"
_PROJECTIONS = (("query", "q"), ("key", "k"), ("value", "v"), ("output", "o"))
_FULL, _SLIDING = "full_attention", "sliding_attention"


def head_dim(config: Config) -> int:
    """The dimensions of each head: what the config says, else an even share of the states.

    >>> head_dim({"hidden_size": 16, "num_attention_heads": 2})
    8
    """
    said = option(config, "head_dim", 0)
    heads = field(config, "num_attention_heads")
    return said or family.head_dim(field(config, "hidden_size"), heads)


def start(config: Config) -> keras.Initializer:
    """How weights are drawn."""
    return keras.initializers.RandomNormal(stddev=option(config, "initializer_range", 0.02))


def tied(config: Config, default: bool = False) -> bool:
    """Whether the head is the table of tokens.

    >>> tied({}), tied({}, default=True), tied({"tie_word_embeddings": True})
    (False, True, True)
    """
    return option(config, "tie_word_embeddings", default)


def layer_windows(
    config: Config, layers: int, window: int | None, slides: Iterable[bool]
) -> list[int | None]:
    """How far each layer sees; None: all that came before.

    Args:
        config: its `layer_types` count, where it has them.
        layers: their number.
        window: of those that see one.
        slides: which do, where the config does not say.

    Raises:
        CheckpointError: if `layer_types` are of another number, or of a kind that is not read.

    >>> layer_windows({}, 3, 8, [True, False, True])
    [8, None, 8]
    """
    kinds = option(config, "layer_types", []) or [_SLIDING if one else _FULL for one in slides]
    if len(kinds) != layers or any(kind not in (_FULL, _SLIDING) for kind in kinds):
        raise CheckpointError(
            f"config.json: layer_types is {shown(kinds)}, and for each of {layers} layers "
            f"{_FULL!r} or {_SLIDING!r} was expected."
        )
    return [window if kind == _SLIDING else None for kind in kinds]


def attention_rows(biases: Collection[str] = ()) -> list[Name]:
    """The rows of the four projections, each with a tensor of its own.

    Args:
        biases: the projections that have one, as in `Attention`.

    >>> len(attention_rows(["query"]))
    5
    """
    rows = []
    for ours, theirs in _PROJECTIONS:
        layer = "output_projection" if ours == "output" else ours
        rows += linear(
            f"{THEIRS}.self_attn.{theirs}_proj", f"{OURS}.attention.{layer}", ours in biases
        )
    return rows


def gated_rows(bias: bool = False) -> list[Name]:
    """The rows of a gated feed-forward, each of its three layers with a tensor of its own.

    >>> [row.theirs for row in gated_rows()][0]
    'model.layers.{i}.mlp.gate_proj.weight'
    """
    rows = []
    for part in ("gate", "up", "down"):
        rows += linear(f"{THEIRS}.mlp.{part}_proj", f"{OURS}.feed_forward.{part}", bias)
    return rows


def norm_rows() -> list[Name]:
    """The rows of the norms before the two branches.

    >>> [row.ours for row in norm_rows()][0]
    'transformer.blocks.{i}.attention_join.norm.scale'
    """
    ours = (("input", "attention_join"), ("post_attention", "feed_forward_join"))
    return [
        Name(f"{THEIRS}.{their}_layernorm.weight", f"{OURS}.{our}.norm.scale")
        for their, our in ours
    ]


def table(model: keras.Model, rows: Iterable[Name], with_head: bool) -> list[Name]:
    """The whole table of names.

    Args:
        model: tells the number of layers.
        rows: of one layer.
        with_head: whether there is one that is not tied.
    """
    return [
        Name("model.embed_tokens.weight", "front.tokens.embeddings"),
        *each_layer(list(rows), len(model.transformer.blocks)),
        Name("model.norm.weight", "transformer.norm.scale"),
        *(linear("lm_head", "head.logits") if with_head else []),
    ]
