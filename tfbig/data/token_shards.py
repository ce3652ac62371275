"""Reading token shards: one long array of token ids, memory-mapped from many files.

`tfbig.data.shards` writes them and says what the files hold. Opening checks every file, so damage
is told by name before training begins, not found as a strange loss after it.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

FORMAT = "tfbig token shards 1"

_REMEDY = "Call write_shards again with the same arguments: it writes what is damaged anew."


class TokenShards:
    """A corpus of token ids on disk.

    Tokens are counted through all shards: document d holds the tokens `starts[d]` up to
    `starts[d] + sizes[d]`, the last of them its end token.

    Args:
        folder: where `write_shards` wrote.
        verify: also compare each file's SHA-256, 1 to 2 seconds per GB; False for a corpus that is
            too large to be read through at each start. The sizes are always compared.

    Attributes:
        tokens, bytes: in all, end tokens counted; bytes of the text in UTF-8.
        starts, sizes, document_bytes: `(documents,)`, int64.
        eos_id, vocabulary_size, tokenizer_hash: as they were given to `write_shards`.

    Raises:
        FileNotFoundError: if the folder, the index or a shard is not there.
        ValueError: if a file is damaged or of another format; it is named.

    >>> import tempfile
    >>> from tfbig.data import write_shards
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = write_shards(
    ...         [("a", "hi"), ("b", "you")], lambda text: list(text.encode()), folder,
    ...         eos_id=256, vocabulary_size=257, tokenizer_hash="bytes",
    ...     )
    ...     shards = TokenShards(folder)
    ...     shards.tokens, shards.bytes, shards.starts.tolist(), shards.gather(np.array([1, 3]))
    (7, 5, [0, 3], array([105, 121], dtype=int32))
    """

    def __init__(self, folder: str | os.PathLike[str], *, verify: bool = True) -> None:
        self.folder = Path(folder)
        index = _read_index(self.folder / "index.json")
        self.eos_id = int(index["eos_id"])
        self.vocabulary_size = int(index["vocabulary_size"])
        self.tokenizer_hash = str(index["tokenizer_hash"])
        self._shards: list[np.ndarray] = []
        tables = []
        for record in index["shards"]:
            tokens = self._open(record, "tokens", index["dtype"], record["tokens"], verify)
            table = self._open(record, "documents", "<i8", 2 * record["documents"], verify)
            table = table.reshape(-1, 2)
            if (table[:, 0] < 1).any() or table[:, 0].sum() != record["tokens"]:
                raise ValueError(
                    f"{str(self.folder / record['name'])}.documents is damaged: its documents do "
                    f"not add up to {record['tokens']} tokens. {_REMEDY}"
                )
            self._shards.append(tokens)
            tables.append(table)
        sizes = np.concatenate(tables)
        self.sizes, self.document_bytes = np.ascontiguousarray(sizes.T)
        self.starts = np.cumsum(self.sizes) - self.sizes
        self._shard_ends = np.cumsum([len(shard) for shard in self._shards])
        self.tokens = int(self._shard_ends[-1])
        self.bytes = int(self.document_bytes.sum())

    def __len__(self) -> int:
        """How many documents there are."""
        return len(self.sizes)

    def gather(self, index: np.ndarray) -> np.ndarray:
        """The tokens at these places.

        Args:
            index: integers of any shape, 0 up to `tokens`.

        Returns:
            Ids of the same shape, int32.
        """
        if len(self._shards) == 1:
            return self._shards[0][index].astype(np.int32)
        shard_of = np.searchsorted(self._shard_ends, index, side="right")
        ids = np.empty(index.shape, np.int32)
        for number in np.unique(shard_of):
            there = shard_of == number
            shard = self._shards[number]
            ids[there] = shard[index[there] - (self._shard_ends[number] - len(shard))]
        return ids

    def documents(self) -> Iterator[np.ndarray]:
        """Yields the ids of each document, its end token last: `(tokens,)`, int32."""
        for start, size in zip(self.starts.tolist(), self.sizes.tolist(), strict=True):
            yield self.gather(np.arange(start, start + size))

    def _open(
        self, record: dict[str, Any], kind: str, dtype: str, count: int, verify: bool
    ) -> np.ndarray:
        path = self.folder / f"{record['name']}.{kind}"
        if not path.is_file():
            raise FileNotFoundError(f"The shard file {str(path)!r} is missing. {_REMEDY}")
        expected = np.dtype(dtype).itemsize * count
        if path.stat().st_size != expected:
            raise ValueError(
                f"{str(path)!r} is damaged: it has {path.stat().st_size} bytes, and the index says "
                f"{expected}. {_REMEDY}"
            )
        if verify:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            if digest != record[f"{kind}_sha256"]:
                raise ValueError(
                    f"{str(path)!r} is damaged: its SHA-256 is {digest}, and the index says "
                    f"{record[f'{kind}_sha256']}. {_REMEDY}"
                )
        return np.memmap(path, dtype, "r")


def _read_index(path: Path) -> dict[str, Any]:
    """The index, checked: all fields are there and of their types, names are plain names."""
    try:
        index = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"There are no finished token shards in {str(path.parent)!r}: {path.name} is missing. "
            f"Call write_shards, again if it was interrupted."
        ) from error
    except ValueError as error:
        raise ValueError(f"{str(path)!r} is damaged: it is not JSON. {_REMEDY}") from error
    if not isinstance(index, dict) or index.get("format") != FORMAT:
        raise ValueError(
            f"{str(path)!r} is not an index of {FORMAT!r}. Call write_shards to write one."
        )
    fields = {"eos_id": int, "vocabulary_size": int, "tokenizer_hash": str, "shards": list}
    _check_fields(path, index, fields)
    if index.get("dtype") not in ("<u2", "<u4") or not index["shards"]:
        raise ValueError(f"{str(path)!r} is damaged: its dtype or its shards. {_REMEDY}")
    for number, record in enumerate(index["shards"]):
        sums = {"tokens_sha256": str, "documents_sha256": str}
        _check_fields(path, record, {"name": str, "tokens": int, "documents": int, **sums})
        # A name with a path in it would read elsewhere.
        if (
            record["name"] != f"shard-{number:05d}"
            or min(record["tokens"], record["documents"]) < 1
        ):
            raise ValueError(f"{str(path)!r} is damaged: its shard {number}. {_REMEDY}")
    return index


def _check_fields(path: Path, record: Any, fields: dict[str, type]) -> None:
    for field, kind in fields.items():
        if not isinstance(record, dict) or not isinstance(record.get(field), kind):
            raise ValueError(
                f"{str(path)!r} is damaged: the field {field!r} must be of type {kind.__name__}. "
                f"{_REMEDY}"
            )
