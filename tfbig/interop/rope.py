"""What a config says of rotary positions, in transformers 5's fields or in those before."""

from typing import Any

from tfbig.interop.family import Config
from tfbig.interop.stored_tensor import CheckpointError
from tfbig.models import LongRotary, Rotary, rotary_frequencies
from tfbig.models.rotary import (
    linear_scaled,
    llama3_scaled,
    long_magnitude,
    yarn_magnitude,
    yarn_scaled,
)


def rotary(config: Config, head_dim: int) -> Rotary:
    """The rotary part of a config: plain, or scaled as Llama 3, YaRN, LongRoPE or linearly.

    Raises:
        CheckpointError: for a kind that is not known.

    >>> rotary({"rope_theta": 100.0}, 4).frequencies
    (1.0, 0.1)
    """
    fields = rope_fields(config)
    base = float(fields.get("rope_theta", 10_000.0))
    kind = fields.get("rope_type") or "default"
    dim = int(head_dim * fields.get("partial_rotary_factor", 1.0))
    plain = rotary_frequencies(dim, base)
    length: Any = fields.get("original_max_position_embeddings")
    length = length or config.get("max_position_embeddings")
    factor: Any = fields.get("factor")
    if factor is None and kind in ("yarn", "longrope"):
        factor = config["max_position_embeddings"] / length
    try:
        if kind == "default":
            return Rotary(plain)
        if kind == "linear":
            return Rotary(linear_scaled(plain, factor))
        if kind == "llama3":
            scaled = llama3_scaled(
                plain, factor, fields["low_freq_factor"], fields["high_freq_factor"], length
            )
            return Rotary(scaled)
        if kind == "yarn":
            return _yarn(plain, factor, base, length, fields)
        if kind == "longrope":
            return _long(plain, factor, length, fields)
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise CheckpointError(
            f"config.json: its rotary positions {dict(fields)} are not those of {kind!r}: {error!r}"
        ) from error
    raise CheckpointError(
        f"config.json: rotary positions of type {kind!r} are none of default, linear, llama3, "
        f"yarn, longrope."
    )


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
    fields.update(config.get("rope_scaling") or config.get("rope_parameters") or {})
    kind = fields.get("rope_type", fields.get("type", "default"))
    fields["rope_type"] = {"su": "longrope"}.get(kind, kind)
    return fields


def _yarn(plain: Any, factor: float, base: float, length: int, fields: dict[str, Any]) -> Rotary:
    scaled = yarn_scaled(
        plain,
        factor,
        base,
        length,
        fields.get("beta_fast") or 32.0,
        fields.get("beta_slow") or 1.0,
    )
    magnitude = fields.get("attention_factor")
    return Rotary(scaled, yarn_magnitude(factor) if magnitude is None else magnitude)


def _long(plain: Any, factor: float, length: int, fields: dict[str, Any]) -> LongRotary:
    short, long = (
        [frequency / divisor for frequency, divisor in zip(plain, fields[name], strict=True)]
        for name in ("short_factor", "long_factor")
    )
    magnitude = fields.get("attention_factor")
    if magnitude is None:
        magnitude = long_magnitude(factor, length)
    return LongRotary(short, long, length, magnitude)
