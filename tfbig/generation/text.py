"""New text after a prompt: `generate_text` for a batch, `stream` piece by piece.

A tokenizer is anything with `encode`, `decode`, `stream()` and `eos_ids`, as
`tfbig.interop.Tokenizer`. A stop string may lie across tokens: what could be its beginning is held
back until it is known.
"""

from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import keras

from tfbig.generation.ids import id_set
from tfbig.generation.samplers import GREEDY, Sampler
from tfbig.generation.tokens import next_ids, vocabulary_of


class TextStream(Protocol):
    """Text as it comes, id by id."""

    def push(self, number: int) -> str:
        """The text that became final with this id."""

    def flush(self) -> str:
        """What is left at the end."""


class TextTokenizer(Protocol):
    """What is asked of a tokenizer."""

    @property
    def eos_ids(self) -> frozenset[int]:
        """The ids at which an answer ends."""

    def encode(self, text: str) -> list[int]:
        """The ids of a text."""

    def stream(self) -> TextStream:
        """A decoder that takes one id at a time."""


@dataclass(frozen=True)
class GeneratedText:
    """The continuation of a text.

    Args:
        text: the new text, up to a stop string.
        ids: the new ids, those of a stop string too, without one of `eos_ids`.
        reason: why it ended: "length", "eos" or "stop".
    """

    text: str
    ids: list[int]
    reason: str


class StopStrings:
    """Lets text through up to the first stop string.

    Args:
        stops: strings; the one that is complete first counts.

    Raises:
        ValueError: if one is empty, or they are one string.

    >>> stops = StopStrings(["END"])
    >>> stops.push("an E"), stops.push("N"), stops.push("t, EN"), stops.push("D."), stops.hit
    ('an ', '', 'ENt, ', '', True)
    """

    def __init__(self, stops: Sequence[str]) -> None:
        if isinstance(stops, str) or not all(isinstance(s, str) and s for s in stops):
            raise ValueError(
                f'stop is a list of strings that are not empty, such as ["\\n"], and was {stops!r}.'
            )
        self._stops = tuple(stops)
        self._held = ""
        self.hit = False

    def push(self, piece: str) -> str:
        """The text that is certain with this piece; after a stop string, none."""
        if self.hit:
            return ""
        text = self._held + piece
        # By their ends: the result must not depend on how the text was cut into pieces.
        ends = [(at + len(s), at) for s in self._stops if (at := text.find(s)) >= 0]
        if ends:
            self.hit, self._held = True, ""
            return text[: min(ends)[1]]
        longest = max(map(len, self._stops), default=1) - 1
        held = next(
            (
                n
                for n in range(min(longest, len(text)), 0, -1)
                if any(s.startswith(text[-n:]) for s in self._stops)
            ),
            0,
        )
        self._held = text[len(text) - held :]
        return text[: len(text) - held]

    def flush(self) -> str:
        """What was held back, at the end."""
        held, self._held = self._held, ""
        return held


class _Row:
    """One text as it is written."""

    def __init__(self, stream: TextStream, eos_ids: frozenset[int], stop: Sequence[str]) -> None:
        self.ids: list[int] = []
        self.reason = ""
        self._stream = stream
        self._eos_ids = eos_ids
        self._stops = StopStrings(stop)

    def push(self, number: int) -> str:
        """The text that is certain with this id."""
        if number in self._eos_ids:
            self.reason = "eos"
            return ""
        self.ids.append(number)
        piece = self._stops.push(self._stream.push(number))
        if self._stops.hit:
            self.reason = "stop"
        return piece

    def finish(self) -> str:
        """The text that is left at the end."""
        piece = self._stops.push(self._stream.flush()) + self._stops.flush()
        self.reason = "stop" if self._stops.hit else self.reason or "length"
        return piece


def generate_text(
    model: keras.Model,
    tokenizer: TextTokenizer,
    prompts: Sequence[str | Sequence[int]],
    *,
    max_new_tokens: int = 128,
    sampler: Sampler = GREEDY,
    eos_ids: Iterable[int] | None = None,
    stop: Sequence[str] = (),
    seed: int | None = None,
    start_ids: Sequence[int] | None = None,
    jit_compile: bool = False,
    forbidden: Iterable[int] = (),
    forbidden_first: Iterable[int] = (),
) -> list[GeneratedText]:
    """Continues each text.

    Args:
        model: a `CausalLM` or a `Seq2Seq`.
        tokenizer: that of the model.
        prompts: texts; or their ids, for a chat template, whose text is encoded without special
            tokens.
        eos_ids: None: those of the tokenizer.
        stop: strings of which each ends a text.
        max_new_tokens, sampler, seed, start_ids, jit_compile, forbidden, forbidden_first: see
            `tfbig.generation.generate`.

    Raises:
        ValueError, TypeError, FloatingPointError: see `tfbig.generation.generate`.
    """
    if isinstance(prompts, str):
        raise ValueError(f"prompts is a list of texts, and was one: give [{prompts[:40]!r}].")
    ends = _eos_ids(model, tokenizer, eos_ids)
    rows = [_Row(tokenizer.stream(), ends, stop) for _ in prompts]
    texts = ["" for _ in rows]
    ids = [_encoded(tokenizer, prompt) for prompt in prompts]
    tokens = next_ids(
        model,
        ids,
        max_new_tokens,
        sampler,
        seed,
        start_ids,
        jit_compile,
        forbidden,
        forbidden_first,
    )
    for new in tokens:
        for number, row in enumerate(rows):
            if not row.reason:
                texts[number] += row.push(new[number])
        if all(row.reason for row in rows):
            break
    texts = [text + row.finish() for text, row in zip(texts, rows, strict=True)]
    return [GeneratedText(text, row.ids, row.reason) for text, row in zip(texts, rows, strict=True)]


def stream(
    model: keras.Model,
    tokenizer: TextTokenizer,
    prompt: str | Sequence[int],
    *,
    max_new_tokens: int = 128,
    sampler: Sampler = GREEDY,
    eos_ids: Iterable[int] | None = None,
    stop: Sequence[str] = (),
    seed: int | None = None,
    start_ids: Sequence[int] | None = None,
    jit_compile: bool = False,
    forbidden: Iterable[int] = (),
    forbidden_first: Iterable[int] = (),
) -> Generator[str, None, str]:
    """Continues one text, and gives it piece by piece as it is written.

        for piece in stream(model, tokenizer, "Once upon a time"):
            print(piece, end="", flush=True)

    Ctrl-C while a token is computed: the text that was held back comes first, then the
    KeyboardInterrupt. Nothing is left half done: all state is the iterator's own.

    Args and Raises: see `generate_text`; errors of the arguments are raised by this call.

    Returns:
        An iterator of pieces that are not empty; what it returns (`yield from`) is why it ended.
    """
    row = _Row(tokenizer.stream(), _eos_ids(model, tokenizer, eos_ids), stop)
    ids = [_encoded(tokenizer, prompt)]
    tokens = next_ids(
        model,
        ids,
        max_new_tokens,
        sampler,
        seed,
        start_ids,
        jit_compile,
        forbidden,
        forbidden_first,
    )
    return _pieces(row, tokens)


def _pieces(row: _Row, tokens: Iterator[list[int]]) -> Generator[str, None, str]:
    try:
        for (number,) in tokens:
            if piece := row.push(number):
                yield piece
            if row.reason:
                break
    except KeyboardInterrupt:
        if piece := row.finish():
            yield piece
        raise
    if piece := row.finish():
        yield piece
    return row.reason


def _encoded(tokenizer: TextTokenizer, prompt: str | Sequence[int]) -> Sequence[int]:
    return tokenizer.encode(prompt) if isinstance(prompt, str) else prompt


def _eos_ids(
    model: keras.Model, tokenizer: TextTokenizer, eos_ids: Iterable[int] | None
) -> frozenset[int]:
    return id_set(
        tokenizer.eos_ids if eos_ids is None else eos_ids, vocabulary_of(model), "eos_ids"
    )
