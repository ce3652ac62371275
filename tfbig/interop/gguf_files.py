"""GGUF files of llama.cpp: the metadata and the tensors' places, checked; one tensor, dequantised.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. The tables of types and the
arithmetic of the quantised blocks are the `gguf` package's. Its `GGUFReader` is not used: on a file
whose counts lie it goes on reading behind the end (2**60 values of no bytes each: for ever, with
memory to match), and on a vocabulary of 49,152 tokens it takes 2 s where this takes a tenth.

Left out, each with an error that says so: files of the other byte order, version 1, files in
several parts, arrays of arrays (llama.cpp reads none either).
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

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

# Gemma's 262,144 tokens take 8 MB.
MAX_HEADER_BYTES = 64 * 2**20
# Of tensors, and of metadata fields. Models have some hundred of each.
MAX_ENTRIES = 2**16
MAX_AXES = 4  # GGML_MAX_DIMS
DEFAULT_ALIGNMENT = 32

_NUMBERS: dict[int, np.dtype] = {  # of enum gguf_type; 7 is a bool, of one byte
    0: np.dtype("u1"),
    1: np.dtype("i1"),
    2: np.dtype("<u2"),
    3: np.dtype("<i2"),
    4: np.dtype("<u4"),
    5: np.dtype("<i4"),
    6: np.dtype("<f4"),
    7: np.dtype("u1"),
    10: np.dtype("<u8"),
    11: np.dtype("<i8"),
    12: np.dtype("<f8"),
}
_BOOL, _STRING, _ARRAY = 7, 8, 9

# The types that are no blocks: read as they are.
_PLAIN = {
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F32": np.dtype("<f4"),
    "F64": np.dtype("<f8"),
    "I8": np.dtype("i1"),
    "I16": np.dtype("<i2"),
    "I32": np.dtype("<i4"),
    "I64": np.dtype("<i8"),
}
_CHUNK = 2**20  # elements of a quantised tensor that are worked on at once


class _Reader:
    """Reads a header forward: never behind the end of the file, never more than the limit."""

    def __init__(self, path: Path, file: BinaryIO, size: int) -> None:
        self.path = path
        self.file = file
        self.left = size

    def take(self, count: int, what: str) -> bytes:
        # Before anything of that size is made.
        if count > self.left:
            raise CheckpointError(
                f"{self.path}: {what} takes {count} bytes, and {self.left} are left of the "
                f"file (or of the {MAX_HEADER_BYTES} that a header may have): the file is cut "
                f"short, or its header is damaged. {DOWNLOAD_AGAIN}"
            )
        self.left -= count
        data = self.file.read(count)
        if len(data) != count:
            raise CheckpointError(f"{self.path} was changed while it was read. Open it again.")
        return data

    def integer(self, size: int, what: str) -> int:
        return int.from_bytes(self.take(size, what), "little")

    def string(self, what: str) -> str:
        data = self.take(self.integer(8, what), what)
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise CheckpointError(
                f"{self.path}: {what} is not UTF-8 ({error}). The header is damaged, or written by "
                f"a faulty converter. {DOWNLOAD_AGAIN}"
            ) from error

    def values(self, kind: int, count: int, what: str) -> list[Any]:
        """`count` values of one type."""
        if kind == _STRING:
            # However large `count`: each takes 8 bytes at least, and the file ends.
            return [self.string(what) for _ in range(count)]
        if kind not in _NUMBERS:
            raise CheckpointError(
                f"{self.path}: {what} is of the type {kind}, and numbers, bools and strings are "
                f"read, and lists of them, but no lists of lists. {DOWNLOAD_AGAIN}"
            )
        dtype = _NUMBERS[kind]
        numbers = np.frombuffer(self.take(dtype.itemsize * count, what), dtype)
        return (numbers != 0 if kind == _BOOL else numbers).tolist()

    def value(self, what: str) -> Any:
        """A type and what is of it: one value, or a list."""
        kind = self.integer(4, what)
        if kind != _ARRAY:
            return self.values(kind, 1, what)[0]
        return self.values(self.integer(4, what), self.integer(8, what), what)


def read_header(path: Path) -> tuple[dict[str, Any], dict[str, StoredTensor]]:
    """The metadata and the tensors of a file, in the file's order.

    Returns:
        The metadata as plain Python values (str, int, float, bool, lists of them), and the tensors
        by name. A shape is NumPy's: GGUF's axes turned round, so `(outputs, inputs)` of a matrix.

    Raises:
        CheckpointError: if the file is cut short or damaged, or of a kind that is left out.
        ImportError: if gguf is not installed.

    >>> import gguf, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "tiny.gguf"
    ...     writer = gguf.GGUFWriter(path, "llama")
    ...     writer.add_block_count(2)
    ...     writer.add_tensor("output.weight", np.ones((5, 32), "float32"))
    ...     writer.write_header_to_file(); writer.write_kv_data_to_file()
    ...     writer.write_tensors_to_file(); writer.close()
    ...     metadata, tensors = read_header(path)
    >>> metadata, tensors["output.weight"].shape
    ({'general.architecture': 'llama', 'llama.block_count': 2}, (5, 32))
    """
    types = _types()
    size = regular_file_size(path)
    with open(path, "rb") as file:
        reader = _Reader(path, file, min(size, MAX_HEADER_BYTES))
        if reader.take(4, "the file's first word") != b"GGUF":
            raise CheckpointError(f"{path} does not start with GGUF: it is another kind of file.")
        version = reader.integer(4, "the version")
        if version not in (2, 3):
            # Version 3 read in the other order is 3 * 2**24.
            other = "of a big-endian machine" if version & 0xFFFF == 0 else f"version {version}"
            raise CheckpointError(
                f"{path} is a GGUF file {other}, and version 2 or 3, little-endian, was expected. "
                f"Convert the model again with today's llama.cpp."
            )
        count = reader.integer(8, "the number of tensors")
        metadata_count = reader.integer(8, "the number of metadata fields")
        if max(count, metadata_count) > MAX_ENTRIES:
            raise CheckpointError(
                f"{path} promises {count} tensors and {metadata_count} metadata fields, and "
                f"{MAX_ENTRIES} are the limit. The header is damaged. {DOWNLOAD_AGAIN}"
            )
        metadata: dict[str, Any] = {}
        for number in range(metadata_count):
            key = reader.string(f"the key of metadata field {number}")
            if key in metadata:
                raise CheckpointError(
                    f"{path}: the metadata field {shown(key)} is there twice. {DOWNLOAD_AGAIN}"
                )
            metadata[key] = reader.value(f"metadata field {shown(key)}")
        _refuse_parts(path, metadata)
        alignment = _alignment(path, metadata)
        found = [_tensor(reader, types, number) for number in range(count)]
        start = -(-file.tell() // alignment) * alignment
    tensors = {}
    for name, dtype, shape, offset, bytes_count in found:
        tensor = StoredTensor(path, name, dtype, shape, start + offset, bytes_count)
        where = f"{path}: tensor {shown(name)}"
        if name in tensors:
            raise CheckpointError(f"{where} is there twice. {DOWNLOAD_AGAIN}")
        if offset % alignment:
            raise CheckpointError(
                f"{where} starts at {offset}, no multiple of the alignment {alignment}: the header "
                f"is damaged. {DOWNLOAD_AGAIN}"
            )
        if tensor.end > size:
            raise CheckpointError(
                f"{where} ends at byte {tensor.end}, and the file has {size}: it is cut short. "
                f"{DOWNLOAD_AGAIN}"
            )
        tensors[name] = tensor
    check_no_overlap(tensors.values())
    return metadata, tensors


def _refuse_parts(path: Path, metadata: Mapping[str, Any]) -> None:
    parts = metadata.get("split.count", 1)
    if isinstance(parts, int) and parts > 1:
        raise CheckpointError(
            f"{path} is one of {parts} parts. Make one file of them: "
            f"llama-gguf-split --merge FIRST_PART OUTPUT.gguf"
        )


def _alignment(path: Path, metadata: Mapping[str, Any]) -> int:
    alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    # A power of two has one bit. `type`, since True is an int, too.
    if type(alignment) is not int or alignment < 1 or alignment & (alignment - 1):
        raise CheckpointError(
            f"{path}: general.alignment is {shown(alignment)}, and a power of two was expected. "
            f"The header is damaged. {DOWNLOAD_AGAIN}"
        )
    return alignment


def _tensor(
    reader: _Reader, types: Mapping[int, tuple[str, int, int]], number: int
) -> tuple[str, str, tuple[int, ...], int, int]:
    """The next tensor's name, type, shape, offset behind the header, and size in bytes."""
    name = reader.string(f"the name of tensor {number}")
    what = f"the description of tensor {shown(name)}"
    where = f"{reader.path}: tensor {shown(name)}"
    axes = reader.integer(4, what)
    if axes > MAX_AXES:
        raise CheckpointError(
            f"{where} has {axes} axes, and {MAX_AXES} are the limit of GGUF. {DOWNLOAD_AGAIN}"
        )
    shape = tuple(reversed([reader.integer(8, what) for _ in range(axes)]))
    kind, offset = reader.integer(4, what), reader.integer(8, what)
    if kind not in types:
        raise CheckpointError(
            f"{where} is of the type {kind}, which the gguf package does not know. The header is "
            f"damaged, or the package too old: pip install --upgrade gguf"
        )
    dtype, block_elements, block_bytes = types[kind]
    elements = element_count(shape, where)
    if (shape[-1] if shape else 1) % block_elements:
        raise CheckpointError(
            f"{where} has the shape {shape}, and a row of {dtype} is of whole blocks of "
            f"{block_elements}. The header is damaged. {DOWNLOAD_AGAIN}"
        )
    return name, dtype, shape, offset, elements // block_elements * block_bytes


def _types() -> dict[int, tuple[str, int, int]]:
    """A type's number to its name, and the elements and bytes of a block."""
    try:
        import gguf
    except ImportError as error:
        raise ImportError(
            'GGUF files are read with the package gguf: pip install "tfbig[interop]"'
        ) from error
    return {int(kind): (kind.name, *sizes) for kind, sizes in gguf.GGML_QUANT_SIZES.items()}


def read_tensor(tensor: StoredTensor) -> np.ndarray:
    """The values of one tensor: a plain type as it is, blocks dequantised to float32.

    Raises:
        CheckpointError: if the file was changed since its header was read, or the gguf package
            cannot dequantise the type.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:  # a block: the scale 0.5, then 32 int8
    ...     path = Path(folder) / "block"
    ...     _ = path.write_bytes(np.float16(0.5).tobytes() + bytes(range(32)))
    ...     read_tensor(StoredTensor(path, "row", "Q8_0", (32,), 0, 34))[:4].tolist()
    [0.0, 0.5, 1.0, 1.5]
    """
    if tensor.dtype in _PLAIN:
        return read_raw(tensor, _PLAIN[tensor.dtype], tensor.shape)
    import gguf

    kind = gguf.GGMLQuantizationType[tensor.dtype]
    values = np.empty(tensor.shape, np.float32)
    if not values.size:
        return values
    rows = values.size // tensor.shape[-1]
    raw = read_raw(tensor, np.dtype("u1"), (rows, tensor.size // rows))
    flat = values.reshape(rows, tensor.shape[-1])
    # The package works on 16 rows and joins them at the end, with twice the tensor in memory.
    step = math.ceil(_CHUNK / tensor.shape[-1])
    # A damaged scale may be infinite or no number: it is the file's value, and no fault of ours.
    with np.errstate(all="ignore"):
        for row in range(0, rows, step):
            try:
                flat[row : row + step] = gguf.quants.dequantize(raw[row : row + step], kind)
            except NotImplementedError as error:
                raise CheckpointError(
                    f"{tensor.path}: tensor {shown(tensor.name)} is of the type {tensor.dtype}, "
                    f"which the gguf package does not dequantise. Take a file of another type, "
                    f"such as Q8_0."
                ) from error
    return values
