"""The flags of the verbs that write text, and what they mean."""

from typing import TYPE_CHECKING, Any

from absl import flags

from tfbig.cli import common
from tfbig.cli.quiet import start_keras

if TYPE_CHECKING:
    from tfbig.generation import Sampler


def define(values: flags.FlagValues, max_new_tokens: int) -> None:
    """Defines the flags.

    Args:
        values: of the verb.
        max_new_tokens: the default of that flag.
    """
    flags.DEFINE_integer(
        "max_new_tokens", max_new_tokens, "at most", lower_bound=1, flag_values=values
    )
    flags.DEFINE_float(
        "temperature",
        None,
        "0 for the likeliest token, below 1 for likelier ones; by default 0, and 1 where --top_k, "
        "--top_p or --min_p is given",
        flag_values=values,
    )
    flags.DEFINE_integer("top_k", None, "draw from the k likeliest tokens", flag_values=values)
    flags.DEFINE_float(
        "top_p", None, "draw from the likeliest tokens of this probability", flag_values=values
    )
    flags.DEFINE_float(
        "min_p",
        None,
        "draw from the tokens of this part of the likeliest one's probability",
        flag_values=values,
    )
    flags.DEFINE_float(
        "repetition_penalty", None, "against what was said; 1.2 is usual", flag_values=values
    )
    flags.DEFINE_multi_string(
        "stop", [], "a string at which a text ends; may be given several times", flag_values=values
    )
    flags.DEFINE_integer(
        "seed", None, "the same one, the same text; by default another", flag_values=values
    )
    common.define_dtype(values)


def sampler(values: flags.FlagValues) -> "Sampler":
    """The sampler of the flags.

    Raises:
        UsageError: for a number out of its range.
    """
    start_keras()
    from tfbig.generation import sampler_of

    narrowed = (values.top_k, values.top_p, values.min_p) != (None, None, None)
    temperature = float(narrowed) if values.temperature is None else values.temperature
    with common.mendable():
        return sampler_of(
            temperature, values.top_k, values.top_p, values.min_p, values.repetition_penalty
        )


def arguments(values: flags.FlagValues) -> dict[str, Any]:
    """What `tfbig.generation.generate_text` and `stream` are given of the flags."""
    return {
        "max_new_tokens": values.max_new_tokens,
        "sampler": sampler(values),
        "stop": values.stop,
        "seed": values.seed,
    }


def forbidden(name: str) -> dict[str, Any]:
    """The tokens that a model's generation_config.json says are not to be written.

    Args:
        name: of the model, as `--model` gives it.
    """
    from tfbig.interop.generation_config import generation_config
    from tfbig.interop.known import path_of

    with common.mendable():
        said = generation_config(path_of(name))
    return {role: ids for role, ids in said.items() if role in ("forbidden", "forbidden_first")}
