"""One dial for a language model: from its depth follows everything else.

The idea is nanochat's (Karpathy 2025): who asks for a bigger model means depth, width, heads,
batch, steps and learning rate at once. The ratios here were measured for two CPU cores, where a
user waits minutes and not days: 2.5 tokens a parameter, where Chinchilla (Hoffmann et al., 2022,
arXiv:2203.15556) finds 20 best for a given amount of arithmetic.
"""

import dataclasses

DEPTHS = {"tiny": 4, "small": 6, "medium": 8, "large": 12}

# Up to about four passes over the same text are as good as new text, and past sixteen nothing is
# learnt (Muennighoff et al., 2023, arXiv:2305.16264). A small folder is not to be learnt by heart.
MOST_PASSES = 10


@dataclasses.dataclass(frozen=True)
class Size:
    """What follows from a depth.

    Attributes:
        num_layers, num_heads, hidden_dim, vocabulary_size: of the network.
        length: tokens in a row, the context.
        batch_size: rows in a step.
        learning_rate: at its peak.
        tokens: to train on, repeats counted.

    >>> size_of("tiny").hidden_dim, size_of("tiny").parameters
    (128, 1303680)
    """

    num_layers: int
    num_heads: int
    hidden_dim: int
    vocabulary_size: int
    length: int
    batch_size: int
    learning_rate: float
    tokens: int

    @property
    def intermediate_dim(self) -> int:
        """Of the gated feed-forward: 8/3 of the width, to a multiple of 16."""
        return 16 * round(self.hidden_dim / 6)

    @property
    def parameters(self) -> int:
        """How many numbers are learnt: token vectors, blocks and the last norm."""
        return parameters_of(
            self.vocabulary_size, self.num_layers, self.hidden_dim, self.intermediate_dim
        )

    def steps(self, corpus_tokens: int) -> int:
        """How many steps `tokens` are, with at most `MOST_PASSES` passes over the corpus.

        >>> size_of("tiny").steps(corpus_tokens=2048)
        10
        """
        tokens = min(self.tokens, MOST_PASSES * corpus_tokens)
        return max(1, -(-tokens // (self.length * self.batch_size)))

    def describe(self) -> str:
        """All numbers, a line each, to be printed."""
        lines = [f"{field.name:16s} {getattr(self, field.name)}" for field in _FIELDS]
        return "\n".join([*lines, f"{'parameters':16s} {self.parameters}"])


_FIELDS = dataclasses.fields(Size)


def parameters_of(
    vocabulary_size: int, num_layers: int, hidden_dim: int, intermediate_dim: int
) -> int:
    """The parameters of `language_model` with a tied head and as many key heads as query heads.

    >>> parameters_of(vocabulary_size=10, num_layers=1, hidden_dim=4, intermediate_dim=8)
    212
    """
    attention = 4 * hidden_dim**2
    feed_forward = 3 * hidden_dim * intermediate_dim
    block = attention + feed_forward + 2 * hidden_dim
    return vocabulary_size * hidden_dim + num_layers * block + hidden_dim


def size_of(size: str | int) -> Size:
    """What follows from the dial.

    Width: 32 for each layer, in heads of 64. A row is as long as the model is wide, and 16 rows are
    a batch; so the batch grows with the model, and the noise of its gradient shrinks. The learning
    rate falls with the square root of the width, as nanochat's does.

    Args:
        size: a name in `DEPTHS`, or the depth itself, an even number of layers.

    Raises:
        ValueError: for another name, or an odd depth or one below 2.

    >>> size_of(8) == size_of("medium"), size_of(8).num_heads
    (True, 4)
    """
    depth = DEPTHS.get(size) if isinstance(size, str) else size
    if isinstance(size, str) and size.isdecimal():
        depth = int(size)
    if depth is None or depth < 2 or depth % 2:
        raise ValueError(
            f"There is no size {size!r}: choose from {', '.join(DEPTHS)}, or give an even number "
            f"of layers, at least 2."
        )
    width = 32 * depth
    vocabulary_size = 4096
    whole = parameters_of(vocabulary_size, depth, width, 16 * round(width / 6))
    return Size(
        num_layers=depth,
        num_heads=width // 64,
        hidden_dim=width,
        vocabulary_size=vocabulary_size,
        length=width,
        batch_size=16,
        learning_rate=round(0.01 * (128 / width) ** 0.5, 6),
        tokens=5 * whole // 2,
    )
