"""The families: each file says what a config means and what the tensors are called."""

from tfbig.interop.families import (
    bert,
    clip,
    distilbert,
    gemma2,
    gpt2,
    llama,
    marian,
    mixtral,
    phi3,
    roberta,
    t5,
    vit,
    whisper,
)
from tfbig.interop.family import Config, Family
from tfbig.interop.stored_tensor import CheckpointError

FAMILIES = (
    bert.FAMILY,
    clip.FAMILY,
    distilbert.FAMILY,
    gemma2.FAMILY,
    gpt2.FAMILY,
    llama.FAMILY,
    marian.FAMILY,
    mixtral.FAMILY,
    phi3.FAMILY,
    roberta.FAMILY,
    t5.FAMILY,
    vit.FAMILY,
    whisper.FAMILY,
)


def family_of(config: Config) -> Family:
    """The family of a config.

    Raises:
        CheckpointError: if there is none for its `model_type`.

    >>> family_of({"model_type": "mistral"}).prefix
    'model.'
    """
    kind = config.get("model_type")
    for family in FAMILIES:
        if kind in family.model_types:
            return family
    known = sorted(kind for family in FAMILIES for kind in family.model_types)
    raise CheckpointError(
        f"config.json: model_type is {kind!r}, and there are families for {known}. A new one is a "
        f"file in tfbig/interop/families: its arguments and a table of names."
    )
