"""The metadata of a GGUF file, each field checked where it is asked for."""

from typing import Any

from tfbig.interop.checkpoint import Checkpoint
from tfbig.interop.stored_tensor import CheckpointError, shown


class Metadata:
    """The fields of one architecture, checked where they are asked for.

    Args:
        checkpoint: of a GGUF file.

    >>> from pathlib import Path
    >>> fields = {"general.architecture": "llama", "llama.block_count": 30}
    >>> metadata = Metadata(Checkpoint(Path("a.gguf"), "gguf", fields, {}, lambda tensor: None))
    >>> metadata.whole("block_count"), metadata.number("rope.freq_base", 10_000.0)
    (30, 10000.0)
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self.architecture = str(checkpoint.config.get("general.architecture"))

    def whole(self, name: str, default: int | None = None, least: int = 1) -> int:
        """A whole number.

        Args:
            name: without the architecture in front.
            default: what llama.cpp takes where it is missing; None: it must be there.
            least: the smallest that makes sense.

        Raises:
            CheckpointError: if it is missing or something else.
        """
        value = self._value(name, default)
        if type(value) is not int or value < least:
            raise self.wrong(name, value, f"a whole number of {least} or more")
        return value

    def number(self, name: str, default: float | None = None) -> float:
        """A positive number; as `whole`."""
        value = self._value(name, default)
        if type(value) not in (int, float) or not 0 < value < float("inf"):
            raise self.wrong(name, value, "a number above 0")
        return float(value)

    def has(self, name: str) -> bool:
        """Whether the field is there."""
        return f"{self.architecture}.{name}" in self.checkpoint.config

    def text(self, name: str, default: str) -> str:
        """A string, as it is."""
        return str(self._value(name, default))

    def _value(self, name: str, default: Any) -> Any:
        key = f"{self.architecture}.{name}"
        value = self.checkpoint.config.get(key, default)
        if value is None:
            known = sorted(k for k in self.checkpoint.config if not k.startswith("tokenizer."))
            raise CheckpointError(
                f"{self.checkpoint.path}: the metadata has no {key!r}, which a model of this "
                f"architecture needs. It has {known}. Convert the model again with today's "
                f"llama.cpp."
            )
        return value

    def wrong(self, name: str, value: Any, expected: str) -> CheckpointError:
        """The error of a field that does not fit."""
        return CheckpointError(
            f"{self.checkpoint.path}: {self.architecture}.{name} is {shown(value)}, and {expected} "
            f"was expected. The file is damaged, or of a model that is built in another way."
        )

    def expect_shape(self, tensor: str, expected: tuple[int, ...]) -> None:
        """Raises CheckpointError if the tensor is missing, or not of the metadata's shape."""
        shape = self.checkpoint.shape(tensor)
        if shape != expected:
            raise CheckpointError(
                f"{self.checkpoint.path}: tensor {tensor!r} has shape {shape}, and by the metadata "
                f"it has {expected}: the file is damaged, or of a model that is built in another "
                f"way."
            )
