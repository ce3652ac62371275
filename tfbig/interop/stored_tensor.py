"""A tensor as it lies in a file: where, how big, of which type; and the error of a bad file.

Shared by the readers of each format. A file's bytes are read with plain `read` calls into the
array that is returned, and not through a memory map: one tensor is in memory at a time either way,
and a mapped file that is cut while it is open kills the process (SIGBUS) where a read can be
answered by an error.
"""

import dataclasses
import math
import os
import reprlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

# NumPy has at most 64 axes, and a network's tensors have at most 6.
MAX_AXES = 32
_SHORT = reprlib.Repr()
_SHORT.maxstring = 100
DOWNLOAD_AGAIN = "Download the file again, and compare its size with the one at its source."


class CheckpointError(ValueError):
    """A checkpoint cannot be read or written: which file, which field, and what to do.

    >>> raise CheckpointError("model.safetensors is cut short. Download the file again.")
    Traceback (most recent call last):
    tfbig.interop.stored_tensor.CheckpointError: model.safetensors is cut short. Download the ...
    """


@dataclasses.dataclass(frozen=True, slots=True)
class StoredTensor:
    """One tensor of a file.

    Attributes:
        path: the file.
        name: the tensor's name in it.
        dtype: the format's own name of the type, such as `"BF16"` or `"Q4_1"`.
        shape: in NumPy's order.
        offset: of its first byte, in bytes from the start of the file.
        size: in bytes, in the file.

    >>> StoredTensor(Path("a.safetensors"), "bias", "F32", (2,), 100, 8).end
    108
    """

    path: Path
    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    size: int

    @property
    def end(self) -> int:
        """The offset of the first byte behind it."""
        return self.offset + self.size


def shown(value: object) -> str:
    """`repr` for a message, in which a value of a file is not shown whole: it may be endless.

    >>> shown("layer.weight"), len(shown("x" * 10**6))
    ("'layer.weight'", 100)
    """
    return _SHORT.repr(value)


def regular_file_size(path: Path) -> int:
    """The size in bytes of a regular file.

    Raises:
        CheckpointError: if it is missing, or a folder, a pipe or a device, of which reading might
            never end.

    >>> regular_file_size(Path("nowhere.gguf"))
    Traceback (most recent call last):
    tfbig.interop.stored_tensor.CheckpointError: nowhere.gguf: there is no such file...
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: there is no such file, or it is not a regular one.")
    return path.stat().st_size


def element_count(shape: Sequence[object], where: str) -> int:
    """How many elements a shape of a file has, once it is checked that NumPy can hold it.

    Args:
        shape: as it was found: anything.
        where: the file and the tensor, for the message.

    Raises:
        CheckpointError: if an axis is not a natural number, there are more than 32 axes, or the
            array could not be addressed.

    >>> element_count([3, 0, 2], "a.safetensors: tensor 'w'")
    0
    """
    if len(shape) > MAX_AXES:
        raise CheckpointError(f"{where} has {len(shape)} axes, and {MAX_AXES} are the limit.")
    axes = []
    for axis in shape:
        # True is an int, too.
        if not isinstance(axis, int) or isinstance(axis, bool) or not 0 <= axis < 2**63:
            raise CheckpointError(
                f"{where} has an axis of {shown(axis)}, and an axis is an integer of 0 or more. "
                f"The header is damaged. {DOWNLOAD_AGAIN}"
            )
        axes.append(axis)
    # NumPy refuses (0, 2**62, 2**62) as well. 16 bytes are the widest element.
    if math.prod(max(axis, 1) for axis in axes) * 16 >= 2**63:
        raise CheckpointError(
            f"{where} has the shape {shown(tuple(axes))}, which no machine can hold. "
            f"The header is damaged. {DOWNLOAD_AGAIN}"
        )
    return math.prod(axes)


def check_no_overlap(tensors: Iterable[StoredTensor]) -> None:
    """Checks that no two tensors of a file share bytes.

    Raises:
        CheckpointError: naming the two.

    >>> check_no_overlap([StoredTensor(Path("f"), "a", "I8", (4,), 8, 4)])
    """
    before = None
    for tensor in sorted(tensors, key=lambda tensor: (tensor.offset, tensor.end)):
        if before is not None and tensor.offset < before.end:
            raise CheckpointError(
                f"{tensor.path}: the tensors {shown(before.name)} and {shown(tensor.name)} share "
                f"bytes. The header is damaged. {DOWNLOAD_AGAIN}"
            )
        before = tensor


def read_raw(tensor: StoredTensor, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    """The tensor's bytes as an array of its own.

    Args:
        tensor: of a header that was checked.
        dtype: how the bytes are to be seen.
        shape: of the array; with `dtype` it makes up the tensor's bytes.

    Raises:
        CheckpointError: if the file is shorter now than its header said.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "numbers"
    ...     _ = path.write_bytes(bytes(range(10)))
    ...     read_raw(StoredTensor(path, "a", "U8", (2, 2), 3, 4), np.dtype("u1"), (2, 2)).tolist()
    [[3, 4], [5, 6]]
    """
    array = np.empty(shape, dtype)
    # `reshape(-1)`: an array without axes has no bytes to write into.
    flat = array.reshape(-1).view(np.uint8)
    with open(tensor.path, "rb") as file:
        file.seek(tensor.offset, os.SEEK_SET)
        count = file.readinto(flat.data) if flat.size else 0
    if count != tensor.size:
        raise CheckpointError(
            f"{tensor.path}: tensor {shown(tensor.name)} has {tensor.size} bytes, and {count} "
            f"could be read: the file was changed after it was opened. Open it again."
        )
    return array
