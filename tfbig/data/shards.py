"""Token shards: a corpus as flat files of token ids, written so that no work is lost.

A folder holds for each shard
    shard-00000.tokens      the ids of its documents, each closed by the end token; little-endian,
                            uint16 up to 65,536 tokens, uint32 above (as nanoGPT's and llm.c's .bin)
    shard-00000.documents   little-endian int64, (documents, 2): tokens, end token counted, and
                            bytes of UTF-8 text of each document
    shard-00000.json        its counts and SHA-256 sums; written last, so what has it is whole
and `index.json`, written last of all, which lists the shards. A document lies in one shard. Each
file is written under a temporary name and renamed. `TokenShards` reads what `write_shards` wrote.
"""

import collections
import contextlib
import hashlib
import itertools
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfbig.data.token_shards import FORMAT, TokenShards

_OWN_FILE = re.compile(r"shard-(\d{5})\.(tokens|documents|json)")


def write_shards(
    documents: Iterable[tuple[str, str]],
    encode: Callable[[str], Sequence[int]],
    folder: str | os.PathLike[str],
    *,
    eos_id: int,
    vocabulary_size: int,
    tokenizer_hash: str,
    shard_tokens: int = 2**22,
    progress: Callable[[int, int], None] | None = None,
) -> TokenShards:
    """Encodes documents into shards. A second call reuses what is finished and unchanged.

    One shard's texts and tokens are in memory at a time. A finished shard is reused if it was
    written with the same arguments from the same names and texts: they are read again, but not
    encoded again. So an interrupted call goes on when it is made again.

    Args:
        documents: `(name, text)`, in an order that stays.
        encode: gives the ids of a text, without special tokens.
        folder: is made; files of an earlier corpus there are replaced.
        eos_id: the end token, put after each document.
        vocabulary_size: ids are below it; decides between 2 and 4 bytes a token.
        tokenizer_hash: names the tokenizer: the SHA-256 of its file or of its JSON text.
        shard_tokens: a shard is closed by the document that reaches this; 4 M tokens are 8 MB, a
            second or two of work.
        progress: called after each document with the counts of documents and tokens so far.

    Returns:
        The shards, open for reading.

    Raises:
        ValueError: if there is no document, an id is outside the vocabulary, or a text has the end
            token inside it.
        KeyboardInterrupt: goes on, with a note that says how many shards are finished.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     shards = write_shards(
    ...         [("a", "hi"), ("b", "you")], lambda text: list(text.encode()), folder,
    ...         eos_id=256, vocabulary_size=257, tokenizer_hash="bytes",
    ...     )
    ...     [ids.tolist() for ids in shards.documents()]
    [[104, 105, 256], [121, 111, 117, 256]]
    """
    if not 0 <= eos_id < vocabulary_size:
        raise ValueError(f"eos_id {eos_id} is not in a vocabulary of {vocabulary_size}.")
    if shard_tokens < 1:
        raise ValueError(f"shard_tokens must be at least 1, and was {shard_tokens}.")
    root = Path(folder)
    root.mkdir(parents=True, exist_ok=True)
    settings = {
        "format": FORMAT,
        "dtype": "<u2" if vocabulary_size <= 2**16 else "<u4",
        "eos_id": eos_id,
        "vocabulary_size": vocabulary_size,
        "tokenizer_hash": tokenizer_hash,
        "shard_tokens": shard_tokens,
    }
    encode_checked = _checked(encode, eos_id, vocabulary_size)
    writer = _Writer(root, settings, documents, encode_checked, progress)
    try:
        records = list(writer.shards())
    except KeyboardInterrupt as interrupt:
        interrupt.add_note(
            f"{writer.finished} shards are finished in {str(root)!r}. Call write_shards again with "
            f"the same arguments to go on from there."
        )
        raise
    if not records:
        raise ValueError("There was no document to write: give at least one.")
    _write_json(root / "index.json", {**settings, "shards": records})
    for path in root.iterdir():
        own = _OWN_FILE.fullmatch(path.name)
        if own and int(own[1]) >= len(records):
            path.unlink()  # of a longer corpus that was here before
    return TokenShards(root, verify=False)


class _Writer:
    """Writes one shard after the other, or finds that it is there already."""

    def __init__(
        self,
        root: Path,
        settings: dict[str, Any],
        documents: Iterable[tuple[str, str]],
        encode: Callable[[str, str], np.ndarray],
        progress: Callable[[int, int], None] | None,
    ) -> None:
        self.root, self.settings, self.encode, self.progress = root, settings, encode, progress
        self.finished = self.documents = self.tokens = 0
        self._documents = iter(documents)
        self._returned: collections.deque[tuple[str, str]] = collections.deque()

    def shards(self) -> Iterator[dict[str, Any]]:
        """Yields the record of each shard, once it is on the disk."""
        while (first := self._next()) is not None:
            self._put_back([first])
            record = self._reused() or self._written()
            self.finished += 1
            yield record

    def _next(self) -> tuple[str, str] | None:
        return self._returned.popleft() if self._returned else next(self._documents, None)

    def _put_back(self, documents: list[tuple[str, str]]) -> None:
        self._returned.extendleft(reversed(documents))

    def _reused(self) -> dict[str, Any] | None:
        """The record of the next shard, if it is whole and of the documents to come."""
        path = self.root / f"{self._name()}.json"
        try:
            record = json.loads(path.read_text())
            if record["settings"] != self.settings or not _is_whole(self.root, record):
                return None
        except (OSError, ValueError, KeyError, TypeError):
            return None  # none yet, or not ours: it is written anew
        taken = list(itertools.islice(iter(self._next, None), record["documents"]))
        after = self._next()
        if after is not None:
            self._put_back([after])
        # A shard that was the last and is not full would end elsewhere now.
        is_cut_here = record["tokens"] >= self.settings["shard_tokens"] or after is None
        if not is_cut_here or _source_hash(taken) != record["source_sha256"]:
            self._put_back(taken)
            return None
        self._report(record["documents"], record["tokens"])
        return record

    def _written(self) -> dict[str, Any]:
        # The shards of an index that is there are about to change: none is better than a false one.
        (self.root / "index.json").unlink(missing_ok=True)
        texts, ids = [], []
        tokens = 0
        for name, text in iter(self._next, None):
            texts.append((name, text))
            ids.append(self.encode(name, text))
            tokens += len(ids[-1])
            self._report(1, len(ids[-1]))
            if tokens >= self.settings["shard_tokens"]:
                break
        name = self._name()
        sizes = [[len(i), len(t.encode())] for i, (_, t) in zip(ids, texts, strict=True)]
        flat = np.concatenate(ids).astype(self.settings["dtype"]).tobytes()
        table = np.array(sizes, "<i8").tobytes()
        record = {
            "name": name,
            "documents": len(ids),
            "tokens": tokens,
            "bytes": sum(size for _, size in sizes),
            "tokens_sha256": hashlib.sha256(flat).hexdigest(),
            "documents_sha256": hashlib.sha256(table).hexdigest(),
            "source_sha256": _source_hash(texts),
            "settings": self.settings,
        }
        (self.root / f"{name}.json").unlink(missing_ok=True)
        _write(self.root / f"{name}.tokens", flat)
        _write(self.root / f"{name}.documents", table)
        _write_json(self.root / f"{name}.json", record)
        return record

    def _name(self) -> str:
        return f"shard-{self.finished:05d}"

    def _report(self, documents: int, tokens: int) -> None:
        self.documents += documents
        self.tokens += tokens
        if self.progress is not None:
            self.progress(self.documents, self.tokens)


def _checked(
    encode: Callable[[str], Sequence[int]], eos_id: int, vocabulary_size: int
) -> Callable[[str, str], np.ndarray]:
    def checked(name: str, text: str) -> np.ndarray:
        ids = np.asarray(encode(text), np.int64)
        if ids.ndim != 1:
            raise ValueError(
                f"encode gives the ids of one text, and gave an array of shape {ids.shape} for "
                f"{name!r}."
            )
        wrong = ids[(ids < 0) | (ids >= vocabulary_size)]
        if wrong.size:
            raise ValueError(
                f"{name!r} was encoded to the id {wrong[0]}, and the vocabulary has "
                f"{vocabulary_size}: give the vocabulary_size of the tokenizer that encodes."
            )
        if eos_id in ids:
            raise ValueError(
                f"{name!r} has the end token {eos_id} inside it. If the tokenizer adds it, encode "
                f"with add_special_tokens=False; if the text itself says it, set the tokenizer's "
                f"encode_special_tokens = True."
            )
        return np.append(ids, eos_id)

    return checked


def _source_hash(documents: Iterable[tuple[str, str]]) -> str:
    digest = hashlib.sha256()
    for part in itertools.chain.from_iterable(documents):
        content = part.encode()
        digest.update(len(content).to_bytes(8))  # so that ("ab", "c") is not ("a", "bc")
        digest.update(content)
    return digest.hexdigest()


def _is_whole(root: Path, record: dict[str, Any]) -> bool:
    return all(
        hashlib.sha256((root / f"{record['name']}.{kind}").read_bytes()).hexdigest()
        == record[f"{kind}_sha256"]
        for kind in ("tokens", "documents")
    )


def _write_json(path: Path, content: dict[str, Any]) -> None:
    _write(path, json.dumps(content, indent=1).encode())


def _write(path: Path, content: bytes) -> None:
    temporary = path.with_name(path.name + ".tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # or a crash could keep the name and lose the content
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
