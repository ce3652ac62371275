"""safetensors files: the header, checked; one tensor; and the index over several shards.

A file is 8 bytes with the header's length, the header (JSON: name to dtype, shape and offsets),
and the tensors' bytes (https://huggingface.co/docs/safetensors, "Format"). The header is read here
and not by the `safetensors` package: of two tensors of one name that takes one without a word, and
to name the field that is wrong the header has to be read in any case (measured on 0.8; its float8
does not come into NumPy either). What it refuses is refused here, too. Left out: types of less than
a byte (F4, F6).
"""

import json
import re
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from tfbig.interop.stored_tensor import (
    DOWNLOAD_AGAIN,
    CheckpointError,
    StoredTensor,
    check_no_overlap,
    element_count,
    read_raw,
    regular_file_size,
    shown,
)

# The package allows 100 MB. JSON takes some 30 times its size in Python, and 16 MiB hold the names
# of 100,000 tensors.
MAX_JSON_BYTES = 16 * 2**20

# Little-endian, by the format.
DTYPES = {
    "BOOL": np.dtype("?"),
    "U8": np.dtype("u1"),
    "I8": np.dtype("i1"),
    "U16": np.dtype("<u2"),
    "I16": np.dtype("<i2"),
    "U32": np.dtype("<u4"),
    "I32": np.dtype("<i4"),
    "U64": np.dtype("<u8"),
    "I64": np.dtype("<i8"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F32": np.dtype("<f4"),
    "F64": np.dtype("<f8"),
    "C64": np.dtype("<c8"),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E4M3FNUZ": np.dtype(ml_dtypes.float8_e4m3fnuz),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
    "F8_E5M2FNUZ": np.dtype(ml_dtypes.float8_e5m2fnuz),
    "F8_E8M0": np.dtype(ml_dtypes.float8_e8m0fnu),
}


def json_object(data: bytes, where: str) -> dict[str, Any]:
    """A JSON object of a file that is not trusted.

    Args:
        data: UTF-8.
        where: the file (and the field), for the message.

    Raises:
        CheckpointError: if it is not JSON, not an object, nested too deeply, or has a key twice.

    >>> json_object(b'{"model_type": "gpt2"}', "config.json")
    {'model_type': 'gpt2'}
    >>> json_object(b'{"a": 1, "a": 2}', "config.json")
    Traceback (most recent call last):
    tfbig.interop.stored_tensor.CheckpointError: config.json: the key 'a' is there twice...
    """

    def without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, value in pairs:
            if name in found:
                raise CheckpointError(
                    f"{where}: the key {shown(name)} is there twice, and it cannot be known which "
                    f"one is meant. {DOWNLOAD_AGAIN}"
                )
            found[name] = value
        return found

    try:
        found = json.loads(data.decode("utf-8"), object_pairs_hook=without_duplicates)
    except CheckpointError:
        raise
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{where} is not JSON ({error}). {DOWNLOAD_AGAIN}") from error
    if not isinstance(found, dict):
        raise CheckpointError(
            f"{where} is a JSON {type(found).__name__}, and an object was expected: "
            f"{{...}}. {DOWNLOAD_AGAIN}"
        )
    return found


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object of a whole file, such as config.json.

    Raises:
        CheckpointError: if it is missing, of more than 16 MiB, or no JSON object.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "config.json"
    ...     _ = path.write_text('{"num_layers": 2}')
    ...     read_json(path)
    {'num_layers': 2}
    """
    size = regular_file_size(path)
    if size > MAX_JSON_BYTES:
        raise CheckpointError(f"{path} has {size} bytes, and {MAX_JSON_BYTES} are the limit.")
    return json_object(path.read_bytes(), str(path))


def read_header(path: Path) -> dict[str, StoredTensor]:
    """The tensors of one file, by name, in the order of the header.

    Raises:
        CheckpointError: if the file is cut short, or a field of the header is not what the format
            says.

    >>> import tempfile
    >>> from safetensors.numpy import save_file
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "model.safetensors"
    ...     save_file({"weight": np.ones((3, 2), "float16")}, path)
    ...     read_header(path)["weight"].shape
    (3, 2)
    """
    size = regular_file_size(path)
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > size - 8:
            raise CheckpointError(
                f"{path}: the file has {size} bytes, and by its first 8 its header alone has "
                f"{length}: it is cut short, or no safetensors file. {DOWNLOAD_AGAIN}"
            )
        if length > MAX_JSON_BYTES:
            raise CheckpointError(
                f"{path}: the header has {length} bytes, and {MAX_JSON_BYTES} are the limit. "
                f"Write the checkpoint in several shards."
            )
        header = json_object(file.read(length), f"{path}: the header")
    header.pop("__metadata__", None)
    tensors = {name: _tensor(path, name, field, 8 + length) for name, field in header.items()}
    # Outside first: a file that is cut short is what happens most.
    for tensor in tensors.values():
        if tensor.end > size:
            raise CheckpointError(
                f"{path}: tensor {shown(tensor.name)} ends at byte {tensor.end}, and the file has "
                f"{size}: it is cut short. {DOWNLOAD_AGAIN}"
            )
    check_no_overlap(tensors.values())
    used = sum(tensor.size for tensor in tensors.values())
    if used != size - 8 - length:
        raise CheckpointError(
            f"{path}: the tensors have {used} bytes, and there are {size - 8 - length} behind the "
            f"header. The format has no gaps: the file is damaged. {DOWNLOAD_AGAIN}"
        )
    return tensors


def _tensor(path: Path, name: str, field: Any, start: int) -> StoredTensor:
    where = f"{path}: tensor {shown(name)}"
    if not isinstance(field, dict) or not {"dtype", "shape", "data_offsets"} <= field.keys():
        raise CheckpointError(
            f"{where} is described by {shown(field)}, and an object with dtype, shape and "
            f"data_offsets was expected. {DOWNLOAD_AGAIN}"
        )
    dtype, shape, offsets = field["dtype"], field["shape"], field["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise CheckpointError(
            f"{where} is of the type {shown(dtype)}, and these are read: {', '.join(DTYPES)}. "
            f"Save it in one of them."
        )
    if not isinstance(shape, list):
        raise CheckpointError(f"{where}: shape is {shown(shape)}, and a list was expected.")
    size = element_count(shape, where) * DTYPES[dtype].itemsize
    # `type`, since True is an int, too.
    if not isinstance(offsets, list) or [type(offset) for offset in offsets] != [int, int]:
        raise CheckpointError(
            f"{where}: data_offsets is {shown(offsets)}, and two integers were expected."
        )
    begin, end = offsets
    if not 0 <= begin < 2**63 or end - begin != size:
        raise CheckpointError(
            f"{where}: data_offsets is {shown(offsets)}, and {dtype} of shape {shown(shape)} takes "
            f"{size} bytes. The header is damaged. {DOWNLOAD_AGAIN}"
        )
    return StoredTensor(path, name, dtype, tuple(shape), start + begin, size)


def read_index(path: Path) -> dict[str, StoredTensor]:
    """The tensors of all shards that a `model.safetensors.index.json` names.

    Shards lie beside the index. Tensors of a shard that the index does not name are left out.

    Raises:
        CheckpointError: if the index leads out of its folder, a shard is missing or damaged, or a
            tensor is not in the shard that it should be in.

    >>> import tempfile
    >>> from safetensors.numpy import save_file
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_file({"bias": np.zeros(3, "float32")}, Path(folder) / "one.safetensors")
    ...     path = Path(folder) / "model.safetensors.index.json"
    ...     _ = path.write_text('{"weight_map": {"bias": "one.safetensors"}}')
    ...     list(read_index(path))
    ['bias']
    """
    weight_map = read_json(path).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(
            f"{path}: weight_map is {shown(weight_map)}, and an object from tensors to shards was "
            f"expected. {DOWNLOAD_AGAIN}"
        )
    names: dict[str, list[str]] = {}
    for name, shard in weight_map.items():
        # No separators: a shard lies beside its index, and nothing else of the disk is read.
        if not isinstance(shard, str) or not re.fullmatch(r"[\w.-]{1,200}", shard, re.ASCII):
            raise CheckpointError(
                f"{path}: the shard of tensor {shown(name)} is {shown(shard)}, and the name of a "
                f"file in the same folder was expected (letters, digits, '.', '_', '-'). Do not "
                f"trust this checkpoint."
            )
        names.setdefault(shard, []).append(name)
    missing = [shard for shard in names if not (path.parent / shard).is_file()]
    if missing:
        tensors = names[missing[0]]
        raise CheckpointError(
            f"{path.parent}: {len(missing)} of {len(names)} shards are missing: "
            f"{', '.join(missing[:5])}. The first has {len(tensors)} tensors: "
            f"{', '.join(map(shown, tensors[:5]))}. Download these files again."
        )
    found = {}
    for shard, expected in names.items():
        header = read_header(path.parent / shard)
        for name in expected:
            if name not in header:
                raise CheckpointError(
                    f"{path}: tensor {shown(name)} should be in {shard}, and is not there: the "
                    f"index and the shards are of two versions. Download all of them again."
                )
            found[name] = header[name]
    # In the order of the index.
    return {name: found[name] for name in weight_map}


def read_tensor(tensor: StoredTensor) -> np.ndarray:
    """The values of one tensor, in its own type and shape.

    Raises:
        CheckpointError: if the file was changed since its header was read.

    >>> import tempfile
    >>> from safetensors.numpy import save_file
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "model.safetensors"
    ...     save_file({"steps": np.array(7)}, path)
    ...     read_tensor(read_header(path)["steps"])
    array(7)
    """
    if tensor.dtype == "BOOL":
        # A byte of 2 as a NumPy bool is neither true nor false.
        return read_raw(tensor, np.dtype("u1"), tensor.shape) != 0
    return read_raw(tensor, DTYPES[tensor.dtype], tensor.shape)
