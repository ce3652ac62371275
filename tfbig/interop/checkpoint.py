"""Checkpoints: tensors by name from a Hugging Face folder, a safetensors or a GGUF file, and back.

    checkpoint = open_checkpoint("SmolLM2-135M")
    checkpoint.config["num_hidden_layers"]
    checkpoint.read("model.norm.weight")      # NumPy, read from the disk now

Nothing here knows a model: names and shapes are those of the file, and to turn them into a
network's is the work of its family. Everything in a file is taken for hostile: it is checked when
it is opened, and what is wrong is a `CheckpointError`. Left out: pickle (`pytorch_model.bin`),
since reading it runs code of the file; TensorFlow's and Flax's old checkpoints; downloading.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import numpy as np

from tfbig.interop import gguf_files, safetensors_files
from tfbig.interop.checkpoint_writer import write_checkpoint
from tfbig.interop.stored_tensor import CheckpointError, StoredTensor, shown

__all__ = ["Checkpoint", "CheckpointError", "open_checkpoint", "write_checkpoint"]

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLES = {".bin", ".pt", ".pth", ".ckpt", ".pkl"}


class Checkpoint:
    """The tensors of a checkpoint by name, read one at a time; made by `open_checkpoint`.

    Between two reads nothing is held open and nothing but the header is in memory. So `with` has
    nothing to close; it may be written all the same.

    Attributes:
        path: the folder or file that was opened.
        format: `"safetensors"` or `"gguf"`.
        config: what config.json says, or the metadata of a GGUF file, as plain Python values.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_checkpoint(f"{folder}/tiny", {"bias": np.zeros(3, "float16")}, {"layers": 1})
    ...     with open_checkpoint(f"{folder}/tiny") as checkpoint:
    ...         checkpoint.names(), checkpoint.dtype("bias"), checkpoint.read("bias").shape
    (('bias',), 'F16', (3,))
    """

    def __init__(
        self,
        path: Path,
        format: Literal["safetensors", "gguf"],
        config: dict[str, Any],
        tensors: Mapping[str, StoredTensor],
        read_tensor: Callable[[StoredTensor], np.ndarray],
    ) -> None:
        self.path = path
        self.format = format
        self.config = config
        self._tensors = tensors
        self._read_tensor = read_tensor

    def __enter__(self) -> "Checkpoint":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        pass

    def __repr__(self) -> str:
        return f"<{self.format} checkpoint of {len(self._tensors)} tensors at {self.path}>"

    def names(self) -> tuple[str, ...]:
        """All names, in the order of the file or of the index."""
        return tuple(self._tensors)

    def has(self, name: str) -> bool:
        """Whether there is a tensor of this name."""
        return name in self._tensors

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape that `read` gives, without reading. Raises as `read` does."""
        return self._tensor(name).shape

    def dtype(self, name: str) -> str:
        """The type by the file's own name: `"F32"`, `"BF16"`, `"Q4_1"`. Raises as `read` does."""
        return self._tensor(name).dtype

    def read(self, name: str) -> np.ndarray:
        """The tensor, read from the disk into an array of its own.

        Returns:
            An array of the file's type (bfloat16 is that of `ml_dtypes`); the quantised blocks of
            GGUF as float32.

        Raises:
            CheckpointError: if there is no such tensor, the file was changed since it was opened,
                or the tensor does not fit into memory.
        """
        tensor = self._tensor(name)
        try:
            return self._read_tensor(tensor)
        except MemoryError as error:
            raise CheckpointError(
                f"{tensor.path}: tensor {shown(name)} of shape {tensor.shape} does not fit into "
                f"this machine's memory."
            ) from error

    def _tensor(self, name: str) -> StoredTensor:
        if name not in self._tensors:
            some = ", ".join(map(shown, list(self._tensors)[:5]))
            raise CheckpointError(
                f"{self.path} has no tensor {shown(name)}: it has {len(self._tensors)}, such as "
                f"{some}. names() gives them all."
            )
        return self._tensors[name]


def open_checkpoint(path: str | Path) -> Checkpoint:
    """Opens a checkpoint for reading, and checks everything but the values.

    Args:
        path: a folder with config.json and model.safetensors, or with its shards and their index,
            as Hugging Face's `save_pretrained` writes it; or a folder with one `.gguf` file; or a
            `.safetensors` file (its `config` is that of the config.json beside it, and empty if
            there is none); or a `.gguf` file.

    Raises:
        CheckpointError: if nothing of this is there, or a file is cut short, damaged, hostile, or a
            pickle.
        ImportError: if it is a GGUF file and the package gguf is not installed.

    >>> open_checkpoint("gpt2")
    Traceback (most recent call last):
    tfbig.interop.stored_tensor.CheckpointError: gpt2: there is no such file or folder...
    """
    path = Path(path)
    if path.is_dir():
        return _open_folder(path)
    if not path.exists():
        raise CheckpointError(
            f"{path}: there is no such file or folder. Nothing is downloaded: give the path of a "
            f"checkpoint that is on this machine."
        )
    if path.suffix == ".gguf":
        return _open_gguf(path, path)
    if path.suffix == ".safetensors":
        beside = path.parent / CONFIG
        config = safetensors_files.read_json(beside) if beside.exists() else {}
        tensors = safetensors_files.read_header(path)
        return Checkpoint(path, "safetensors", config, tensors, safetensors_files.read_tensor)
    if path.suffix in PICKLES:
        raise _pickle_refused(path)
    raise CheckpointError(f"{path}: a file ending in .safetensors or .gguf was expected.")


def _open_folder(folder: Path) -> Checkpoint:
    # First the single file, as transformers does it.
    for file, read in (
        (folder / WEIGHTS, safetensors_files.read_header),
        (folder / INDEX, safetensors_files.read_index),
    ):
        if file.exists():
            config = safetensors_files.read_json(folder / CONFIG)
            tensors = read(file)
            return Checkpoint(folder, "safetensors", config, tensors, safetensors_files.read_tensor)
    others = sorted(folder.glob("*.safetensors"))
    if others:
        raise CheckpointError(
            f"{folder} has neither {WEIGHTS} nor {INDEX}, but {_listed(others)}. If the index is "
            f"missing, download it; else give the path of the one file that you want."
        )
    ggufs = sorted(folder.glob("*.gguf"))
    if len(ggufs) == 1:
        return _open_gguf(folder, ggufs[0])
    if ggufs:
        raise CheckpointError(
            f"{folder} has {len(ggufs)} GGUF files: {_listed(ggufs)}. Give the path of one of them."
        )
    pickles = sorted(file for file in folder.iterdir() if file.suffix in PICKLES)
    if pickles:
        raise _pickle_refused(pickles[0])
    raise CheckpointError(
        f"{folder} is no checkpoint: {WEIGHTS}, {INDEX} with its shards, or one .gguf file was "
        f"expected, and it has {_listed(sorted(folder.iterdir())) or 'nothing'}."
    )


def _open_gguf(path: Path, file: Path) -> Checkpoint:
    metadata, tensors = gguf_files.read_header(file)
    return Checkpoint(path, "gguf", metadata, tensors, gguf_files.read_tensor)


def _listed(files: list[Path]) -> str:
    return ", ".join(file.name for file in files[:5]) + (", ..." if len(files) > 5 else "")


def _pickle_refused(path: Path) -> CheckpointError:
    return CheckpointError(
        f"{path} is a pickle, and to read a pickle is to run code that is in it. Convert it where "
        f"you trust it, with transformers: AutoModel.from_pretrained(folder)"
        f".save_pretrained(folder) writes {WEIGHTS}."
    )
