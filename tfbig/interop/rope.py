"""What a config says of rotary positions, in transformers 5's fields or in those before."""

import math
from typing import Any

from tfbig.interop.family import Config, option
from tfbig.interop.stored_tensor import CheckpointError, shown
from tfbig.models import LongRotary, Rotary, rotary_frequencies
from tfbig.models.rotary import (
    Frequencies,
    linear_scaled,
    llama3_scaled,
    long_magnitude,
    yarn_magnitude,
    yarn_scaled,
)

# Far above any model's, so that no list of frequencies is endless.
_WIDEST_HEAD = 2**16
_KINDS = ("default", "linear", "llama3", "yarn", "longrope")


def rotary(config: Config, head_dim: int) -> Rotary:
    """The rotary part of a config: plain, or scaled as Llama 3, YaRN, LongRoPE or linearly.

    Raises:
        CheckpointError: for a kind that is not known, or where a number is missing or cannot be.

    >>> rotary({"rope_theta": 100.0}, 4).frequencies
    (1.0, 0.1)
    """
    fields = rope_fields(config)
    kind = fields["rope_type"]
    base = option(fields, "rope_theta", 10_000.0, least=1.0)
    dim = int(head_dim * option(fields, "partial_rotary_factor", 1.0, most=1.0))
    if not 2 <= dim <= _WIDEST_HEAD or dim % 2:
        raise CheckpointError(
            f"config.json: of a head's {head_dim} dimensions {dim} are turned in pairs, and an "
            f"even number from 2 to {_WIDEST_HEAD} was expected."
        )
    try:
        part = _of_kind(kind, config, fields, rotary_frequencies(dim, base), base)
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(
            f"config.json: its rotary positions {shown(fields)} are not those of {kind!r}: "
            f"{error!r}"
        ) from error
    long = part.long_frequencies if isinstance(part, LongRotary) else ()
    if not all(0 < n < math.inf for n in (*part.frequencies, *long, part.magnitude)):
        raise CheckpointError(
            f"config.json: its rotary positions {shown(fields)} give frequencies that are not all "
            f"above 0: the file is damaged."
        )
    return part


def _of_kind(kind: str, config: Config, fields: Config, plain: Frequencies, base: float) -> Rotary:
    if kind == "default":
        return Rotary(plain)
    if kind not in _KINDS:
        raise CheckpointError(
            f"config.json: rotary positions of type {shown(kind)} are none of {', '.join(_KINDS)}."
        )
    length = option(config, "max_position_embeddings", 0)
    original = option(fields, "original_max_position_embeddings", length)
    if kind != "linear" and not original:
        raise LookupError("original_max_position_embeddings")
    given = option(fields, "factor", 0.0)
    # A factor that is not given is how much longer rows have become.
    stretch = given or length / original
    magnitude = option(fields, "attention_factor", 0.0)
    if kind == "linear":
        return Rotary(linear_scaled(plain, given))
    if kind == "llama3":
        low, high = (option(fields, f"{name}_freq_factor", 0.0) for name in ("low", "high"))
        return Rotary(llama3_scaled(plain, given, low, high, original))
    if kind == "yarn":
        fast, slow = option(fields, "beta_fast", 32.0), option(fields, "beta_slow", 1.0)
        scaled = yarn_scaled(plain, stretch, base, original, fast, slow)
        return Rotary(scaled, magnitude or yarn_magnitude(stretch))
    short, long = (
        [frequency / divisor for frequency, divisor in zip(plain, fields[name], strict=True)]
        for name in ("short_factor", "long_factor")
    )
    return LongRotary(short, long, original, magnitude or long_magnitude(stretch, original))


def rope_fields(config: Config) -> dict[str, Any]:
    """The fields in one dict, whether the config is of transformers 5 (`rope_parameters`) or older.

    >>> rope_fields({"rope_theta": 5e5, "rope_scaling": {"type": "su", "factor": 2.0}})["rope_type"]
    'longrope'
    """
    fields = {
        name: config[name]
        for name in ("rope_theta", "partial_rotary_factor", "original_max_position_embeddings")
        if config.get(name) is not None
    }
    nothing: dict[str, Any] = {}
    fields.update(
        option(config, "rope_scaling", nothing) or option(config, "rope_parameters", nothing)
    )
    kind = option(fields, "rope_type", option(fields, "type", "default"))
    fields["rope_type"] = {"su": "longrope"}.get(kind, kind)
    return fields
