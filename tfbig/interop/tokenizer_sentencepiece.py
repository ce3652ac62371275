"""SentencePiece models (`tokenizer.model`, `spiece.model`, `*.spm`), read and built.

The file is one protobuf message (`sentencepiece_model.proto` of google/sentencepiece). It is read
here in a page, with no generated code: the pieces with their scores, and the settings that decide
how a text is cut. What is built follows these settings, and the tests hold it to the ids of the
`sentencepiece` package itself, which is what the models were trained with.

Left out: denormalization, subword regularization, models of words and characters. One difference
stays: where two merges that give the same piece compete, SentencePiece takes the left one, and
`tokenizers` the one of the shorter left part.
"""

import math
import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tfbig.interop.tokenizer import TokenizerError, require_tokenizers

SPACE = "\N{LOWER ONE EIGHTH BLOCK}"  # how a piece spells a space

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
_UNIGRAM, _BPE = 1, 2
# Characters, in all cuts of all pieces; Gemma's 256,000 pieces come to less than a tenth of it.
_MOST_CUTS = 10**9


@dataclass(frozen=True)
class Piece:
    """A piece of the vocabulary: its text, its log-probability (or merge order), its type.

    >>> Piece("</s>", 0.0, CONTROL).kind
    3
    """

    text: str
    score: float
    kind: int = NORMAL


@dataclass(frozen=True)
class SentencePieceModel:
    """What a SentencePiece file says; the defaults are those of its format.

    Args:
        pieces: by id.
        is_bpe: merges by score; else unigram, the most probable cut.
        byte_fallback: to spell an unknown character in bytes.
        unk_id, bos_id, eos_id, pad_id: -1 where there is none.
        charsmap: the compiled table of its normalization (NFKC and the like), or empty.
        add_dummy_prefix: to put a space before a text.
        remove_extra_whitespaces: to drop spaces at the ends and in rows.

    >>> SentencePieceModel((Piece("a", 0.0),), is_bpe=False).unk_id
    0
    """

    pieces: tuple[Piece, ...]
    is_bpe: bool
    byte_fallback: bool = False
    unk_id: int = 0
    bos_id: int = 1
    eos_id: int = 2
    pad_id: int = -1
    charsmap: bytes = b""
    add_dummy_prefix: bool = True
    remove_extra_whitespaces: bool = True


def read_sentencepiece(data: bytes) -> SentencePieceModel:
    """Reads the bytes of a SentencePiece file.

    Raises:
        TokenizerError: if they are none, are cut off, or are of a kind that is not read.

    >>> read_sentencepiece(b"\\x0a\\x03\\x0a\\x01a").pieces
    (Piece(text='a', score=0.0, kind=1),)
    """
    pieces, trainer, normalizer = [], {}, {}
    for number, value in _fields(data):
        if number == 1:
            piece = dict(_fields(_as_bytes(value)))
            pieces.append(
                Piece(
                    _as_text(piece.get(1, b"")),
                    _as_float(piece.get(2, b"\0" * 4)),
                    _as_int(piece.get(3, NORMAL)),
                )
            )
        elif number == 2:
            trainer = dict(_fields(_as_bytes(value)))
        elif number == 3:
            normalizer = dict(_fields(_as_bytes(value)))
    if not pieces:
        raise TokenizerError("it has no pieces: it is no SentencePiece model")
    kind = _as_int(trainer.get(3, _UNIGRAM))
    if kind not in (_UNIGRAM, _BPE):
        raise TokenizerError(f"its model_type is {kind}, and 1 (unigram) and 2 (BPE) are read")
    if not _as_int(normalizer.get(5, 1)) or _as_int(trainer.get(24, 0)):
        raise TokenizerError(
            "it marks words otherwise than by a space before them; that is not read"
        )
    return SentencePieceModel(
        pieces=tuple(pieces),
        is_bpe=kind == _BPE,
        byte_fallback=bool(_as_int(trainer.get(35, 0))),
        unk_id=_as_int(trainer.get(40, 0)),
        bos_id=_as_int(trainer.get(41, 1)),
        eos_id=_as_int(trainer.get(42, 2)),
        pad_id=_as_int(trainer.get(43, -1)),
        charsmap=_as_bytes(normalizer.get(2, b"")),
        add_dummy_prefix=bool(_as_int(normalizer.get(3, 1))),
        remove_extra_whitespaces=bool(_as_int(normalizer.get(4, 1))),
    )


def build_sentencepiece(model: SentencePieceModel, prefix_once: bool = False) -> Any:
    """A `tokenizers.Tokenizer` that cuts as SentencePiece does.

    Args:
        model: of `read_sentencepiece`.
        prefix_once: to put the space only before the first text, and not after each special token
            that is spelled out in it: Transformers' `legacy=False`. It then also takes a space
            that is there for the prefix.

    Raises:
        TokenizerError: if the pieces are no vocabulary.

    >>> pieces = (Piece("<unk>", 0, UNKNOWN), Piece("▁", -2), Piece("a", -3), Piece("▁a", -1))
    >>> tokenizer = build_sentencepiece(SentencePieceModel(pieces, is_bpe=True))
    >>> tokenizer.encode("a  aa").ids, tokenizer.decode([3, 3, 2])
    ([3, 3, 2], 'a aa')
    """
    tokenizers = require_tokenizers()
    _check(model)
    backend = tokenizers.Tokenizer(_bpe(model) if model.is_bpe else _unigram(model))
    norm, pre = tokenizers.normalizers, tokenizers.pre_tokenizers
    steps = [norm.Precompiled(model.charsmap)] if model.charsmap else []
    if model.remove_extra_whitespaces:
        # Spaces, and no other white space: the table has made those to spaces, or left them.
        steps.append(norm.Replace(tokenizers.Regex(r"\A +| +\z"), ""))
        steps.append(norm.Replace(tokenizers.Regex(" {2,}"), " "))
    steps.append(norm.Replace(" ", SPACE))
    if model.add_dummy_prefix and not prefix_once:
        steps.append(norm.Prepend(SPACE))
    backend.normalizer = norm.Sequence(steps)
    cuts = []
    if model.add_dummy_prefix and prefix_once:
        cuts.append(pre.Metaspace(SPACE, prepend_scheme="first", split=False))
    user_defined = [piece.text for piece in model.pieces if piece.kind == USER_DEFINED]
    if user_defined:
        # Found before all else, the longest first. Not as added tokens: those would cut the text
        # before its spaces are marked, and each part would get a prefix.
        longest_first = sorted(user_defined, key=len, reverse=True)
        pattern = tokenizers.Regex("|".join(re.escape(text) for text in longest_first))
        cuts.append(pre.Split(pattern, behavior="isolated"))
    if cuts:
        backend.pre_tokenizer = pre.Sequence(cuts)
    backend.decoder = _decoder(model)
    control = [piece.text for piece in model.pieces if piece.kind == CONTROL]
    backend.add_special_tokens(
        [tokenizers.AddedToken(text, normalized=False, special=True) for text in control]
    )
    return backend


def _check(model: SentencePieceModel) -> None:
    texts = {piece.text for piece in model.pieces}
    if len(texts) != len(model.pieces):
        raise TokenizerError(f"{len(model.pieces) - len(texts)} of its pieces occur twice")
    if not all(math.isfinite(piece.score) for piece in model.pieces):
        raise TokenizerError("a score of its pieces is no number")
    if not 0 <= model.unk_id < len(model.pieces):
        raise TokenizerError(f"its unk_id is {model.unk_id}, of {len(model.pieces)} pieces")


def _unigram(model: SentencePieceModel) -> Any:
    # tokenizers knows no types: a piece that a text may not give is made as good as impossible.
    vocabulary = [
        (p.text, p.score if p.kind in (NORMAL, USER_DEFINED, UNKNOWN, CONTROL) else -1e6)
        for p in model.pieces
    ]
    return require_tokenizers().models.Unigram(
        vocabulary, unk_id=model.unk_id, byte_fallback=model.byte_fallback
    )


def _bpe(model: SentencePieceModel) -> Any:
    vocabulary = {piece.text: number for number, piece in enumerate(model.pieces)}
    return require_tokenizers().models.BPE(
        vocabulary,
        list(merges_by_score(model.pieces)),
        unk_token=model.pieces[model.unk_id].text,
        fuse_unk=True,
        byte_fallback=model.byte_fallback,
        # A user-defined piece is cut out whole, and there are no merges that make it.
        ignore_merges=any(piece.kind == USER_DEFINED for piece in model.pieces),
    )


def merges_by_score(pieces: Sequence[Piece]) -> list[tuple[str, str]]:
    """The merges that SentencePiece's BPE does, first the one that is done first.

    Its file has none: two neighbours are merged if their text is a piece, the best score first.

    Raises:
        TokenizerError: if pieces are so long that it would take minutes to cut each everywhere.

    >>> merges_by_score([Piece("a", -2), Piece("b", -3), Piece("ab", 0), Piece("aba", -1)])
    [('a', 'b'), ('ab', 'a')]
    """
    # Each place of a piece gives two parts of its length.
    work = sum(len(piece.text) ** 2 for piece in pieces if piece.kind == NORMAL)
    if work > _MOST_CUTS:
        longest = max(len(piece.text) for piece in pieces)
        raise TokenizerError(
            f"its {len(pieces)} pieces have up to {longest} characters, and those of BPE are short "
            f"(16, where a trainer was not told otherwise): it is damaged"
        )
    normal = {piece.text for piece in pieces if piece.kind == NORMAL}
    ranked = [
        (-piece.score, number, at)
        for number, piece in enumerate(pieces)
        if piece.kind == NORMAL
        for at in range(1, len(piece.text))
        if piece.text[:at] in normal and piece.text[at:] in normal
    ]
    return [(pieces[n].text[:at], pieces[n].text[at:]) for _, n, at in sorted(ranked)]


def _decoder(model: SentencePieceModel) -> Any:
    decoders = require_tokenizers().decoders
    steps = [decoders.Replace(SPACE, " ")]
    if model.byte_fallback:
        steps.append(decoders.ByteFallback())
    steps.append(decoders.Fuse())
    if model.add_dummy_prefix:
        steps.append(decoders.Strip(" ", 1, 0))
    return decoders.Sequence(steps)


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The (number, value) of each field of a protobuf message; of 4 and 8 bytes as bytes."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        wire = key & 7
        if wire == 0:
            value, at = _varint(data, at)
            yield key >> 3, value
            continue
        if wire == 2:
            length, at = _varint(data, at)
        elif wire in (1, 5):
            length = 8 if wire == 1 else 4
        else:
            raise TokenizerError(f"at byte {at} it is no protobuf message (wire type {wire})")
        if length > len(data) - at:
            raise TokenizerError(f"it is cut off: {length} bytes should follow byte {at}")
        yield key >> 3, data[at : at + length]
        at += length


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise TokenizerError(f"it is cut off at byte {at}")
        value |= (data[at] & 0x7F) << shift
        at += 1
        if data[at - 1] < 0x80:
            return value, at
    raise TokenizerError(f"at byte {at} a number is longer than 10 bytes")


def _as_int(value: int | bytes) -> int:
    if not isinstance(value, int):
        raise TokenizerError("a field that is a number is none")
    value &= 2**64 - 1
    return value - 2**64 if value >= 2**63 else value


def _as_bytes(value: int | bytes) -> bytes:
    if not isinstance(value, bytes):
        raise TokenizerError("a field that is a message is none")
    return value


def _as_float(value: int | bytes) -> float:
    if not isinstance(value, bytes) or len(value) != 4:
        raise TokenizerError("a score is no number of 4 bytes")
    return struct.unpack("<f", value)[0]


def _as_text(value: int | bytes) -> str:
    try:
        return _as_bytes(value).decode("utf-8")
    except UnicodeDecodeError as error:
        raise TokenizerError(f"a piece is no UTF-8: {error}") from error
