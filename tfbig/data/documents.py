"""Documents: named texts, read one at a time, and split so that no text is on both sides.

A corpus is a sequence of `(name, text)` in a stable order. A text is read when it is asked for, so
a corpus may be larger than memory. Two corpora: the sources and documentation of the Python that
runs, which every installation has, and a folder of the user's.

The split is by document. The side of a document depends on its name and the seed alone: a file that
is added later moves no other file to the other side.
"""

import dataclasses
import fnmatch
import functools
import hashlib
import os
import sysconfig
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import overload

TEXT_PATTERNS = ("*.txt", "*.md", "*.rst", "*.py", "*.html", "*.htm", "*.tex", "*.org", "*.csv")

# Tests repeat each other and the code they test; site-packages are other people's.
_NOT_STDLIB = {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"}
# The source of the topics below: in training, it would tell all of their text.
_TOPICS_SOURCE = "pydoc_data/topics.py"
# Of a file's beginning, looked through for a zero byte: git's own rule for binary files.
_PROBE_BYTES = 8000


class Documents(Sequence[tuple[str, str]]):
    """A sequence of `(name, text)`; each text is read when its document is asked for.

    Args:
        readers: for each document its name and a function that reads its text.
        skipped: names of files that were left out because they are binary.

    >>> documents = Documents([("a", lambda: "text of a"), ("b", lambda: "text of b")])
    >>> documents[1], len(documents), documents[:1].names
    (('b', 'text of b'), 2, ('a',))
    """

    def __init__(
        self, readers: Iterable[tuple[str, Callable[[], str]]], skipped: Iterable[str] = ()
    ) -> None:
        self._readers = tuple(readers)
        self.names = tuple(name for name, _ in self._readers)
        self.skipped = tuple(skipped)

    def __len__(self) -> int:
        return len(self._readers)

    @overload
    def __getitem__(self, index: int) -> tuple[str, str]: ...

    @overload
    def __getitem__(self, index: slice) -> "Documents": ...

    def __getitem__(self, index: int | slice) -> "tuple[str, str] | Documents":
        if isinstance(index, slice):
            return Documents(self._readers[index], self.skipped)
        name, read = self._readers[index]
        return name, read()

    def select(self, indices: Iterable[int]) -> "Documents":
        """Some of the documents, in the order of the indices; nothing is read."""
        return Documents([self._readers[index] for index in indices], self.skipped)


def python_documents() -> Documents:
    """The standard library's sources, without tests, and its language reference by topic.

    About 800 files and 80 topics, 13 MB, under the PSF licence; they differ a little from one
    version of Python to the next, so scores are to be compared on one version.

    Returns:
        Sources named by their path (`json/decoder.py`), topics as `pydoc_data/topics/assert`;
        sorted by name.

    >>> documents = python_documents()
    >>> "json/decoder.py" in documents.names, "pydoc_data/topics/assert" in documents.names
    (True, True)
    """
    from pydoc_data import topics

    root = Path(sysconfig.get_paths()["stdlib"])
    found: dict[str, Callable[[], str]] = {
        f"pydoc_data/topics/{key}": functools.partial(topics.topics.__getitem__, key)
        for key in topics.topics
    }
    for path in root.rglob("*.py"):
        name = path.relative_to(root)
        if not _NOT_STDLIB & set(name.parts) and name.as_posix() != _TOPICS_SOURCE:
            # A distribution may add a file in another encoding; it shall not stop the recipe.
            found[name.as_posix()] = functools.partial(_read, path, "replace")
    return Documents(sorted(found.items()))


def folder_documents(
    path: str | os.PathLike[str],
    patterns: Sequence[str] = TEXT_PATTERNS,
    errors: str = "strict",
) -> Documents:
    """The text files of a folder and of the folders inside it, as UTF-8.

    Hidden files and folders (`.git`) are left out, and so are links to folders. Binary files, those
    with a zero byte near their beginning, are left out and listed in `skipped`.

    Args:
        path: a folder; or one file, which is then the only document.
        patterns: which file names are taken, by `fnmatch`, in upper or lower case.
        errors: what to do where a file is not UTF-8: `"strict"` raises when it is read, `"replace"`
            puts U+FFFD for each wrong byte. Wrong bytes mostly mean another encoding, hence strict.

    Returns:
        Documents named by their path in the folder, sorted by name.

    Raises:
        FileNotFoundError: if there is no such folder, or no file in it that fits.
        ValueError: for another `errors`; and, when a file is read, if it is not UTF-8.

    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = pathlib.Path(folder, "a.txt").write_text("one")
    ...     list(folder_documents(folder))
    [('a.txt', 'one')]
    """
    if errors not in ("strict", "replace"):
        raise ValueError(f'errors is "strict" or "replace", and was {errors!r}.')
    root = Path(path)
    if not root.exists():
        raise FileNotFoundError(f"There is no folder or file {str(root)!r}.")
    if root.is_file():
        files = {root.name: root}
    else:
        files = dict(_files_of(root, patterns))
    binary = {name for name, file in files.items() if _is_binary(file)}
    texts = sorted(set(files) - binary)
    if not texts:
        raise FileNotFoundError(
            f"No text was found in {str(root)!r} for the patterns {', '.join(patterns)} "
            f"({len(binary)} binary files were left out; text in UTF-16 counts as such). Give "
            f"another folder or other patterns, or convert the files to UTF-8."
        )
    readers = [(name, functools.partial(_read, files[name], errors)) for name in texts]
    return Documents(readers, sorted(binary))


@dataclasses.dataclass(frozen=True)
class DocumentSplit:
    """Documents to learn from, and others to be judged by; no text is in both.

    Attributes:
        train, held_out: the two sides, each in the order of the corpus.
        train_bytes, held_out_bytes: of their texts, in UTF-8.
        repeated: names of the documents left out because their text was there already.
    """

    train: Documents
    held_out: Documents
    train_bytes: int
    held_out_bytes: int
    repeated: tuple[str, ...]

    def describe(self) -> str:
        """The counts in one line, to be printed."""
        return (
            f"{len(self.train)} documents to train on ({self.train_bytes / 1e6:.2f} MB), "
            f"{len(self.held_out)} held out ({self.held_out_bytes / 1e6:.2f} MB), "
            f"{len(self.repeated)} left out as repeated, "
            f"{len(self.train.skipped)} left out as binary"
        )


def split_documents(documents: Documents, held_out: float = 0.1, seed: int = 0) -> DocumentSplit:
    """Splits by document. Each text is kept once; held-out documents come first in that.

    So a document whose text is held out under another name is left out of the training side, and
    the held-out side does not change with what is added to the training side. Reads every document
    once; of each it keeps 32 bytes, the SHA-256.

    Args:
        documents: the corpus.
        held_out: the share that is held out, between 0 and 1, of the documents (not of the bytes).
        seed: of the split.

    Raises:
        ValueError: if `held_out` is not between 0 and 1, or if a side is left empty.

    >>> corpus = Documents([(f"{i}.txt", lambda i=i: f"text {i % 50}") for i in range(60)])
    >>> split = split_documents(corpus, held_out=0.2)
    >>> len(split.train), len(split.held_out), len(split.repeated)
    (35, 15, 10)
    """
    if not 0 < held_out < 1:
        raise ValueError(f"held_out is a share between 0 and 1, and was {held_out}.")
    is_out = [_share(f"{seed}/{name}") < held_out for name in documents.names]
    seen: set[bytes] = set()
    kept: dict[bool, list[int]] = {True: [], False: []}
    size = {True: 0, False: 0}
    repeated = []
    for side in (True, False):
        for index in (i for i, out in enumerate(is_out) if out is side):
            name, text = documents[index]
            content = text.encode()
            digest = hashlib.sha256(content).digest()
            if digest in seen:
                repeated.append(name)
                continue
            seen.add(digest)
            kept[side].append(index)
            size[side] += len(content)
    if not kept[True] or not kept[False]:
        raise ValueError(
            f"Of {len(documents)} documents {len(kept[False])} are to train on and "
            f"{len(kept[True])} held out; both sides need one. Give more documents (smaller "
            f"files), another share than {held_out}, or another seed."
        )
    return DocumentSplit(
        documents.select(kept[False]),
        documents.select(kept[True]),
        size[False],
        size[True],
        tuple(sorted(repeated)),
    )


def _share(name: str) -> float:
    """A number in [0, 1) that depends on the name alone (`hash` differs in each process)."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) / 2**64


def _files_of(root: Path, patterns: Sequence[str]) -> Iterator[tuple[str, Path]]:
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]  # walk goes into these
        for base in names:
            fits = any(fnmatch.fnmatchcase(base.lower(), pattern.lower()) for pattern in patterns)
            path = Path(folder, base)
            if fits and not base.startswith(".") and path.is_file():
                name = path.relative_to(root).as_posix()
                # Linux has names that are not UTF-8; ours are hashed and printed.
                yield os.fsencode(name).decode("utf-8", "backslashreplace"), path


def _is_binary(path: Path) -> bool:
    with path.open("rb") as file:
        return b"\0" in file.read(_PROBE_BYTES)


def _read(path: Path, errors: str) -> str:
    # Not `read_text`: that would turn "\r\n" into "\n", and bytes are counted.
    try:
        return path.read_bytes().decode("utf-8", errors)
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{str(path)!r} is not UTF-8: byte {error.start} is 0x{error.object[error.start]:02x}. "
            f'Convert the file, leave it out, or read with errors="replace".'
        ) from error
