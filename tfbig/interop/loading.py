"""A checkpoint as a network, and back: `load` and `save`.

A network is built by its family from the config. Its variables are made one after the other, each
with the tensor that is read for it then: nothing is drawn at random to be thrown away, and beside
the weights one tensor is in memory. Nothing is returned half-loaded. `save` writes what
`transformers` loads.
"""

import contextlib
import dataclasses
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tfbig.interop import sentence_transformers
from tfbig.interop.checkpoint import CheckpointError, open_checkpoint, write_checkpoint
from tfbig.interop.deferred import Tensors, deferred_variables, give
from tfbig.interop.families import family_of
from tfbig.interop.family import Config, Family, check_layers
from tfbig.interop.names import Name, spellings, to_theirs, unknown, variable
from tfbig.interop.stored_tensor import shown

DTYPES = (None, "float32", "bfloat16", "float16")

# The config.json that a network was loaded with: what a config says beyond the network (token ids,
# names of classes) is written out again with it.
_CONFIGS: "weakref.WeakKeyDictionary[keras.Model, dict]" = weakref.WeakKeyDictionary()
# Weights that it was loaded with and does not compute with (`Family.carried`), by name.
_CARRIED: "weakref.WeakKeyDictionary[keras.Model, dict]" = weakref.WeakKeyDictionary()


def load(path: str | Path, dtype: str | None = None) -> tuple[keras.Model, Any]:
    """Reads a Hugging Face folder or a GGUF file.

    Args:
        path: a folder with config.json and safetensors (in shards, too), or a `.gguf` file.
        dtype: a Keras dtype policy for the network, such as "bfloat16" or "mixed_bfloat16"; None:
            Keras's global one, which is float32 unless it was set. The file's own dtype does not
            matter: its numbers are cast.

    Returns:
        `(model, tokenizer)`: a built network, ready to compile; and a `Tokenizer`, or None where
        there are no files of one.

    Raises:
        CheckpointError: if a tensor or field is missing, unknown or of the wrong shape, or the
            family is not known; it says which.
        TokenizerError: if there are files of a tokenizer that cannot be read.
    """
    from tfbig.interop.tokenizer_files import load_tokenizer
    from tfbig.interop.tokenizer_gguf import tokenizer_from_gguf

    tokenizer: Any
    tensors: Tensors
    with open_checkpoint(path) as checkpoint:
        if checkpoint.format == "gguf":
            from tfbig.interop.gguf_models import as_hugging_face

            tokenizer = tokenizer_from_gguf(checkpoint.config)
            config, tensors = as_hugging_face(checkpoint)
        else:
            tokenizer = load_tokenizer(path) if Path(path).is_dir() else None
            config, tensors = sentence_transformers.configured(path, checkpoint.config), checkpoint
        return network(config, tensors, dtype), tokenizer


def network(config: Config, tensors: Tensors, dtype: str | None = None) -> keras.Model:
    """The network of a config.json, filled with tensors; arguments and errors as in `load`."""
    family = family_of(config)
    tensors = family.joined(tensors)
    with policy(dtype), deferred_variables() as deferred:
        model = built(family, config, len(tensors.names()))
        give(table(family, config, model, tensors.names()), model, tensors, deferred)
    _CONFIGS[model] = dict(config)
    _CARRIED[model] = carried(family, config, model, tensors)
    return model


def built(family: Family, config: Config, tensors: int) -> keras.Model:
    """The network of a config, and all that a damaged one makes go wrong as a CheckpointError.

    Args:
        family: of the config.
        config: what config.json says.
        tensors: how many there are: no network has more layers.
    """
    check_layers(config, tensors)
    try:
        model = family.build(config)
        model.build()
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(
            f"config.json of a {shown(config.get('model_type'))} makes no network "
            f"({type(error).__name__}: {error}): the file is damaged."
        ) from error
    return model


def carried(
    family: Family, config: Config, model: keras.Model, tensors: Tensors
) -> dict[str, np.ndarray]:
    """The weights that a network does not compute with, by the names that `save` gives them.

    Args:
        family, config, model, tensors: of which `table` has accounted for all tensors.
    """
    names = family.names(config, model)
    spelled = spellings(tensors.names(), names, family.prefix, family.aliases)
    return {name: tensors.read(spelled[name]) for name in unknown(spelled, names, family.ignored)}


def table(family: Family, config: Config, model: keras.Model, theirs: Any) -> list[Name]:
    """The table of names for the tensors that there are, all accounted for.

    Raises:
        CheckpointError: if one is missing, or one is there that the network has no place for.
    """
    names = family.names(config, model)
    spelled = spellings(theirs, names, family.prefix, family.aliases)
    missing = [name.theirs for name in names if name.theirs not in spelled]
    surplus = unknown(spelled, names, family.ignored + family.carried)
    if missing or surplus:
        raise CheckpointError(
            f"The tensors are not those of a {config.get('model_type')!r} by its config.json: "
            f"missing {_some(missing)}; without a place {_some(surplus)}. The config is of another "
            f"model, or the download is incomplete."
        )
    return [dataclasses.replace(name, theirs=spelled[name.theirs]) for name in names]


def _some(names: list[str]) -> str:
    return (", ".join(names[:4]) + (f" and {len(names) - 4} more" if names[4:] else "")) or "none"


@contextlib.contextmanager
def policy(dtype: str | None) -> Iterator[None]:
    """Within it, `dtype` is Keras's global dtype policy; None leaves it.

    >>> with policy("bfloat16"):
    ...     keras.layers.Dense(1).compute_dtype
    'bfloat16'
    """
    before = keras.config.dtype_policy()
    if dtype is not None:
        keras.config.set_dtype_policy(dtype)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def config_of(model: keras.Model) -> dict[str, Any]:
    """The config.json of a network: the one it was loaded with, or one made for `language_model`'s.

    Raises:
        CheckpointError: if it was not loaded and has a part that a Llama has not.
    """
    from tfbig.interop.families import llama

    return dict(_CONFIGS[model]) if model in _CONFIGS else llama.config_of(model)


def save(
    model: keras.Model,
    path: str | Path,
    tokenizer: Any = None,
    config: Mapping[str, Any] | None = None,
    dtype: str | None = None,
    max_shard_bytes: int = 5 * 2**30,
) -> None:
    """Writes a folder that `transformers` loads; atomically: it is there whole, or not at all.

    Args:
        model: a network that was loaded, or made by `language_model`.
        path: of the folder, which must not be there yet (or be empty).
        tokenizer: written beside it, its special ids into the config that has none; None: none.
        config: of config.json; None: that of `config_of(model)`.
        dtype: "float32", "bfloat16" or "float16"; None: the dtype of the network's variables.
        max_shard_bytes: weights that take more are written in several files.

    Raises:
        CheckpointError: if the folder is not free, or no family is known for the network.
        ValueError: for another dtype.
    """
    if dtype not in DTYPES:
        raise ValueError(f"dtype is {dtype!r}, and weights are saved as one of {DTYPES}.")
    config = dict(config_of(model) if config is None else config)
    family = family_of(config)
    names = family.names(config, model)
    first = variable(model, names[0].paths[0])
    config["dtype"] = dtype or keras.backend.standardize_dtype(first.dtype)
    config.pop("torch_dtype", None)
    if tokenizer is not None:
        # Also None: else transformers would take the ids of the first model of the family.
        special = dict(tokenizer.special.items())
        for role in ("bos", "eos", "pad"):
            config.setdefault(f"{role}_token_id", special.get(role))
    sentences = config.pop(sentence_transformers.KEY, None)

    def tensors() -> Iterator[tuple[str, np.ndarray]]:
        for name in names:
            arrays = [keras.ops.convert_to_numpy(variable(model, p)) for p in name.paths]
            for theirs, array in family.parted(name.theirs, to_theirs(name, arrays)):
                yield theirs, array.astype(_numpy_dtype(dtype, array))
        for theirs, array in _CARRIED.get(model, {}).items():
            yield theirs, array.astype(_numpy_dtype(config["dtype"], array))

    def beside(folder: Path) -> None:
        if sentences is not None:
            sentence_transformers.write(folder, sentences, model.front.hidden_dim)
        if tokenizer is not None:
            tokenizer.save(folder)

    write_checkpoint(path, tensors(), config, max_shard_bytes=max_shard_bytes, beside=beside)


def _numpy_dtype(dtype: str | None, array: np.ndarray) -> np.dtype:
    import ml_dtypes

    return np.dtype(ml_dtypes.bfloat16) if dtype == "bfloat16" else np.dtype(dtype or array.dtype)
