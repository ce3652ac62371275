"""Rotary positions (Su et al., 2021, arXiv:2104.09864) and the ways to stretch them.

A head's dimensions are turned in pairs (i, i + dim/2), each by its own frequency times the
position; so the product of a query and a key depends on their distance only. The ways to reach
further than the network was trained differ in the frequencies alone. They are free functions from
frequencies to frequencies; `Rotary` turns, and knows nothing of them.

- `linear_scaled`: all frequencies divided (Chen et al., 2023, arXiv:2306.15595).
- `llama3_scaled`: the slow ones only, with a smooth border (Llama 3.1's reference code).
- `yarn_scaled`: a ramp between both, and larger scores (Peng et al., 2023, arXiv:2309.00071);
  Qwen.
- `LongRotary`: two sets, one for short and one for long rows (Ding et al., 2024,
  arXiv:2402.13753); Phi-3.

Left out: the dynamic form of NTK scaling, whose frequencies depend on the length at each step, so
that keys in a cache are turned by others than those that come later.
"""

import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from tfbig.models.parts import precise

Frequencies = tuple[float, ...]


def rotary_frequencies(dim: int, base: float = 10_000.0) -> Frequencies:
    """base^(-2i/dim), in radians for each position; `dim` is the number of dimensions turned.

    >>> rotary_frequencies(4, 100.0)
    (1.0, 0.1)
    """
    return tuple(base ** (-2 * i / dim) for i in range(dim // 2))


def linear_scaled(frequencies: Frequencies, factor: float) -> Frequencies:
    """All frequencies divided by `factor`.

    >>> linear_scaled((1.0, 0.1), 2.0)
    (0.5, 0.05)
    """
    return tuple(frequency / factor for frequency in frequencies)


def llama3_scaled(
    frequencies: Frequencies,
    factor: float,
    low_factor: float,
    high_factor: float,
    original_length: int,
) -> Frequencies:
    """Llama 3.1's: waves longer than `original_length / low_factor` are divided, short ones stay.

    >>> llama3_scaled((1.0, 1e-4), 8.0, 1.0, 4.0, 8192)
    (1.0, 1.25e-05)
    """

    def scaled(frequency: float) -> float:
        turns = original_length * frequency / (2 * math.pi)
        # 0 for a wave that does not fit low_factor times into the context, 1 for one that fits
        # high_factor times.
        share = min(max((turns - low_factor) / (high_factor - low_factor), 0.0), 1.0)
        return (1 - share) * frequency / factor + share * frequency

    return tuple(scaled(frequency) for frequency in frequencies)


def yarn_scaled(
    frequencies: Frequencies,
    factor: float,
    base: float,
    original_length: int,
    fast: float = 32.0,
    slow: float = 1.0,
) -> Frequencies:
    """YaRN's: those that turn more than `fast` times in the context stay, below `slow` all divided.

    >>> scaled = yarn_scaled(rotary_frequencies(64), 4.0, 10_000.0, 2048)
    >>> scaled[0], round(scaled[-1] / rotary_frequencies(64)[-1], 2)
    (1.0, 0.25)
    """
    dim = 2 * len(frequencies)

    def turning(turns: float) -> float:
        return dim * math.log(original_length / (turns * 2 * math.pi)) / (2 * math.log(base))

    low = max(math.floor(turning(fast)), 0)
    high = min(math.ceil(turning(slow)), dim - 1)
    width = (high - low) or 0.001
    result = []
    for i, frequency in enumerate(frequencies):
        divided = min(max((i - low) / width, 0.0), 1.0)
        result.append(divided * frequency / factor + (1 - divided) * frequency)
    return tuple(result)


def yarn_magnitude(factor: float) -> float:
    """How much YaRN enlarges queries and keys: 0.1 ln(factor) + 1.

    >>> round(yarn_magnitude(4.0), 4)
    1.1386
    """
    return 1.0 if factor <= 1 else 0.1 * math.log(factor) + 1.0


def long_magnitude(factor: float, original_length: int) -> float:
    """How much LongRoPE enlarges queries and keys: sqrt(1 + ln(factor) / ln(original length)).

    >>> round(long_magnitude(32.0, 4096), 4)
    1.1902
    """
    return 1.0 if factor <= 1 else math.sqrt(1 + math.log(factor) / math.log(original_length))


def rotated(x: Any, angles: Any, magnitude: float = 1.0) -> Any:
    """The first dimensions of each head turned by angles, the rest as they are.

    Args:
        x: `(batch, time, heads, dim)`.
        angles: `(batch or 1, time, turned / 2)`, radians.
        magnitude: what the turned dimensions are multiplied by.

    Returns:
        As `x`.

    >>> quarter = rotated(ops.array([[[[1.0, 0.0]]]]), ops.array([[[math.pi / 2]]]))
    >>> [round(float(v), 4) for v in ops.reshape(quarter, [-1])]
    [-0.0, 1.0]
    """
    half = angles.shape[-1]
    cos = ops.cast(ops.cos(angles) * magnitude, x.dtype)[:, :, None, :]
    sin = ops.cast(ops.sin(angles) * magnitude, x.dtype)[:, :, None, :]
    first, second, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    turned = [first * cos - second * sin, second * cos + first * sin]
    return ops.concatenate(turned if 2 * half == x.shape[-1] else [*turned, rest], axis=-1)


@keras.saving.register_keras_serializable("tfbig")
class Rotary(keras.layers.Layer):
    """Turns queries and keys by their positions.

    Args:
        frequencies: radians for each position, one for each pair of dimensions; those of a head
            beyond twice their number stay as they are.
        magnitude: what is turned is multiplied by it (YaRN).

    Shapes:
        `(batch, time, heads, dim)` and positions `(batch or 1, time)` in; as the first out.

    >>> Rotary(rotary_frequencies(8))(ops.ones((2, 3, 1, 8)), ops.ones((2, 3))).shape
    TensorShape([2, 3, 1, 8])
    """

    def __init__(self, frequencies: Sequence[float], magnitude: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.frequencies = tuple(float(frequency) for frequency in frequencies)
        self.magnitude = magnitude

    def call(self, x: Any, positions: Any) -> Any:
        return rotated(x, self.angles(positions), self.magnitude)

    def angles(self, positions: Any) -> Any:
        """`(batch or 1, time, pairs)` of positions `(batch or 1, time)`."""
        dtype = precise(self.compute_dtype)
        return ops.cast(positions, dtype)[..., None] * ops.array(self.frequencies, dtype)

    @property
    def borders(self) -> tuple[int, ...]:
        """Positions at which a row is turned anew, from its first token on; see `cache_borders`."""
        return ()

    def compute_output_shape(self, x_shape: Any, positions_shape: Any = None) -> Any:
        return x_shape

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "frequencies": list(self.frequencies),
            "magnitude": self.magnitude,
        }


@keras.saving.register_keras_serializable("tfbig")
class LongRotary(Rotary):
    """Two sets of frequencies: the long one for a row with a position at `original_length` or more.

    Each row of a batch has its own, so that it does not depend on its neighbours; transformers
    takes the batch's furthest position for all. Padding counts if it has positions of its own: by
    default a row that is padded on the right is as long as the batch.

    When a row grows beyond the border, the keys that a cache holds of it are void, for they stay as
    they were turned. `tfbig.generation` then computes all tokens again, as transformers does.

    Args:
        frequencies: those for short rows.
        long_frequencies: those for long ones.
        original_length: the number of tokens up to which a row is short.
        magnitude: as in `Rotary`.

    >>> long = LongRotary((1.0,), (0.5,), original_length=4)
    >>> float(long.angles(ops.array([[3]]))[0, 0, 0]), float(long.angles(ops.array([[4]]))[0, 0, 0])
    (3.0, 2.0)
    """

    def __init__(
        self,
        frequencies: Sequence[float],
        long_frequencies: Sequence[float],
        original_length: int,
        magnitude: float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(frequencies, magnitude, **kwargs)
        self.long_frequencies = tuple(float(frequency) for frequency in long_frequencies)
        self.original_length = original_length

    def angles(self, positions: Any) -> Any:
        """`(batch or 1, time, pairs)` of positions `(batch or 1, time)`."""
        dtype = precise(self.compute_dtype)
        long = ops.max(positions, axis=-1, keepdims=True) >= self.original_length
        short_set, long_set = (
            ops.array(frequencies, dtype)
            for frequencies in (self.frequencies, self.long_frequencies)
        )
        frequencies = ops.where(long[..., None], long_set, short_set)
        return ops.cast(positions, dtype)[..., None] * frequencies

    @property
    def borders(self) -> tuple[int, ...]:
        """The first position of a long row."""
        return (self.original_length,)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "long_frequencies": list(self.long_frequencies),
            "original_length": self.original_length,
        }


def cache_borders(transformer: Any) -> frozenset[int]:
    """Positions at which a cache becomes void: a row that reaches one is computed from its start.

    Args:
        transformer: a `Transformer`.

    >>> from tfbig.models import language_model
    >>> cache_borders(language_model(9, 1, 1, 4).transformer)
    frozenset()
    """
    rotaries = [block.attention.rotary for block in transformer.blocks]
    return frozenset(
        border for rotary in rotaries if isinstance(rotary, Rotary) for border in rotary.borders
    )
