"""Writes a checkpoint folder that Hugging Face's transformers loads: config.json and safetensors.

The folder is there whole or not at all: it is written under another name beside the final one, and
renamed at the end. Left out: writing GGUF, and quantising.
"""

import contextlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from tfbig.interop import safetensors_files
from tfbig.interop.stored_tensor import CheckpointError, shown

Tensors = Mapping[str, np.ndarray] | Iterable[tuple[str, np.ndarray]]

# transformers does not load a file without it.
PYTORCH: Mapping[str, str] = MappingProxyType({"format": "pt"})


def write_checkpoint(
    folder: str | Path,
    tensors: Tensors,
    config: Mapping[str, Any],
    *,
    metadata: Mapping[str, str] = PYTORCH,
    max_shard_bytes: int = 5 * 2**30,
    beside: Callable[[Path], None] | None = None,
) -> None:
    """Writes config.json and model.safetensors, or several shards and their index.

    Args:
        folder: where to; its parents are made. It must not exist, or be empty.
        tensors: by name, or pairs of name and array, also of a generator. An array is kept until
            its shard is written, and no longer: do not overwrite one that was given. So a shard's
            worth is in memory, and a smaller shard takes less.
        config: what config.json is to say.
        metadata: of the safetensors header; the default marks PyTorch's layout, which transformers
            asks for.
        max_shard_bytes: a file's tensors take no more, but for one that is bigger alone. The
            default was long the one of transformers.
        beside: writes more files (a tokenizer's) into the folder that it is given, before that is
            renamed.

    Raises:
        CheckpointError: if the folder has something in it, a name is there twice or is none, a type
            cannot be written, there is no tensor, or `config` is not JSON. Then, and on any other
            error, and on Ctrl-C, nothing is left behind.
        ImportError: if safetensors is not installed.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as parent:
    ...     rows = ((f"row{n}", np.full(2, n, "float32")) for n in range(3))
    ...     write_checkpoint(f"{parent}/model", rows, {"rows": 3}, max_shard_bytes=16)
    ...     sorted(file.name for file in Path(parent, "model").iterdir())[:2]
    ['config.json', 'model-00001-of-00002.safetensors']
    """
    # Resolved: a link cannot be renamed over.
    folder = Path(folder).resolve()
    text = _json(config)
    if not all(isinstance(part, str) for pair in metadata.items() for part in pair):
        raise CheckpointError(f"metadata is {shown(metadata)}: its keys and values are strings.")
    if max_shard_bytes < 1:
        raise CheckpointError(f"max_shard_bytes is {max_shard_bytes}: it is a positive number.")
    _check_free(folder)
    with _temporary_folder_beside(folder) as temporary:
        (temporary / "config.json").write_text(text, encoding="utf-8")
        _write_weights(temporary, tensors, metadata, max_shard_bytes)
        if beside is not None:
            beside(temporary)
        # Again: it may have been filled in the meantime. On POSIX an empty one is replaced.
        _check_free(folder)
        os.rename(temporary, folder)


def _write_weights(
    folder: Path, tensors: Tensors, metadata: Mapping[str, str], max_shard_bytes: int
) -> None:
    save_file = _save_file()
    shards: list[list[str]] = []
    total_bytes = 0
    for shard in _shards(_checked(tensors), max_shard_bytes):
        # The names say how many there are, which is known at the end.
        part = folder / f"{len(shards)}.part"
        save_file(shard, part, metadata=dict(metadata))
        # safetensors writes for the owner's eyes only; config.json has what the umask says.
        part.chmod((folder / "config.json").stat().st_mode)
        shards.append(list(shard))
        total_bytes += sum(array.nbytes for array in shard.values())
        # Else it would live on in `shard` while the next one is gathered.
        shard.clear()
    if not shards:
        raise CheckpointError("There is no tensor to write. Was a generator used up before?")
    if len(shards) == 1:
        os.rename(folder / "0.part", folder / "model.safetensors")
        return
    weight_map = {}
    for number, names in enumerate(shards):
        name = f"model-{number + 1:05}-of-{len(shards):05}.safetensors"
        os.rename(folder / f"{number}.part", folder / name)
        weight_map.update(dict.fromkeys(names, name))
    index = {"metadata": {"total_size": total_bytes}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(_json(index), encoding="utf-8")


def _shards(
    tensors: Iterable[tuple[str, np.ndarray]], max_shard_bytes: int
) -> Iterator[dict[str, np.ndarray]]:
    shard: dict[str, np.ndarray] = {}
    size = 0
    for name, array in tensors:
        if shard and size + array.nbytes > max_shard_bytes:
            yield shard
            shard, size = {}, 0
        shard[name] = array
        size += array.nbytes
    if shard:
        yield shard


def _checked(tensors: Tensors) -> Iterator[tuple[str, np.ndarray]]:
    """The pairs, as arrays whose bytes are the file's."""
    seen = set()
    for name, value in tensors.items() if isinstance(tensors, Mapping) else tensors:
        text = isinstance(name, str) and not re.search("[\ud800-\udfff]", name)
        if not text or name == "__metadata__":
            raise CheckpointError(f"A tensor's name is Unicode text, and one is {shown(name)}.")
        if name in seen:
            raise CheckpointError(f"Two tensors are named {shown(name)}.")
        seen.add(name)
        # The writer takes the bytes from the first on, whatever the strides are. (And not
        # `ascontiguousarray`, which gives an array without axes one.)
        array = np.asarray(value, order="C")
        if array.dtype.newbyteorder("<") not in safetensors_files.DTYPES.values():
            raise CheckpointError(
                f"Tensor {shown(name)} is of the type {array.dtype}, and these are written: "
                f"{', '.join(map(str, safetensors_files.DTYPES.values()))}. Cast it first."
            )
        yield name, array


def _check_free(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise CheckpointError(
            f"{folder} is there already, and nothing is overwritten: give another name, or remove "
            f"it first."
        )


@contextlib.contextmanager
def _temporary_folder_beside(folder: Path) -> Iterator[Path]:
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Not `tempfile.mkdtemp`, whose folder only its owner can read.
    temporary = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.tmp")
    temporary.mkdir()
    try:
        yield temporary
    finally:
        # After the renaming there is nothing of this name.
        shutil.rmtree(temporary, ignore_errors=True)


def _json(value: Mapping[str, Any]) -> str:
    try:
        return json.dumps(dict(value), indent=2, sort_keys=True) + "\n"
    except (TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(f"The config cannot be written as JSON: {error}.") from error


def _save_file() -> Any:
    try:
        from safetensors.numpy import save_file
    except ImportError as error:
        raise ImportError(
            'Checkpoints are written with the package safetensors: pip install "tfbig[interop]"'
        ) from error
    return save_file
