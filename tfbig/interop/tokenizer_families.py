"""The families of tokenizers whose folders hold a bare vocabulary, and how each is built from it.

A family is a row: how its files become a `tokenizers.Tokenizer`, which special tokens it has where
no file says, and what it puts around a text. `load_tokenizer` picks the row by the family's name.
"""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tfbig.interop import tokenizer_models, tokenizer_sentencepiece
from tfbig.interop.tokenizer import LARGEST_VOCABULARY, TokenizerError, foreign_errors
from tfbig.interop.tokenizer_sentencepiece import Piece, SentencePieceModel
from tfbig.interop.tokenizer_text_files import read_bytes, read_optional_json, read_text

_END = "<|endoftext|>"
_BERT = {role: f"[{role.upper()}]" for role in ("unk", "sep", "pad", "cls", "mask")}
_BART = {
    **{"bos": "<s>", "cls": "<s>", "eos": "</s>", "sep": "</s>"},
    **{"unk": "<unk>", "pad": "<pad>", "mask": "<mask>"},
}
_GPT = {"bos": _END, "eos": _END, "unk": _END}
_PIECES = {"bos": "<s>", "eos": "</s>", "unk": "<unk>"}
_T5 = {"eos": "</s>", "unk": "<unk>", "pad": "<pad>"}
_GEMMA = {"bos": "<bos>", "eos": "<eos>", "unk": "<unk>", "pad": "<pad>", "mask": "<mask>"}
# By the family's name: the special tokens where no file says them, which are those of the classes
# of Transformers. A token that the vocabulary has not is left out.
SPECIAL_TOKENS: Mapping[str, Mapping[str, str]] = {
    "gpt2": _GPT,
    "whisper": _GPT,
    "qwen2": {"eos": _END, "pad": _END, "unk": _END},
    "clip": {"bos": "<|startoftext|>", "eos": _END, "pad": _END, "unk": _END},
    "roberta": _BART,
    "bart": _BART,
    "xlmroberta": _BART,
    "bert": _BERT,
    "distilbert": _BERT,
    "llama": _PIECES,
    "mistral": _PIECES,
    "gemma": _GEMMA,
    "t5": _T5,
    "mt5": _T5,
    "marian": _T5,
}

Config = Mapping[str, Any]
Around = tuple[list[str], list[str]]


@dataclass(frozen=True)
class Built:
    """What a family makes of its files.

    Args:
        backend: a `tokenizers.Tokenizer`, as yet without what it puts around a text.
        tokens: the special tokens of the files themselves or of the family, by role.
        target: of a translation model, the tokenizer that decodes.
    """

    backend: Any
    tokens: Mapping[str, str]
    target: Any = None


def _around_nothing(config: Config, tokens: Mapping[str, str]) -> Around:
    """A BOS or EOS only where the configuration asks for it."""
    return _around_optional(config, tokens, bos=False)


def _around_bos(config: Config, tokens: Mapping[str, str]) -> Around:
    return _around_optional(config, tokens, bos=True)


def _around_optional(config: Config, tokens: Mapping[str, str], bos: bool) -> Around:
    before = [tokens["bos"]] if config.get("add_bos_token", bos) and "bos" in tokens else []
    after = [tokens["eos"]] if config.get("add_eos_token", False) and "eos" in tokens else []
    return before, after


def _around_eos(config: Config, tokens: Mapping[str, str]) -> Around:
    return [], [tokens["eos"]]


def _around_bos_eos(config: Config, tokens: Mapping[str, str]) -> Around:
    return [tokens["bos"]], [tokens["eos"]]


def _around_cls_sep(config: Config, tokens: Mapping[str, str]) -> Around:
    return [tokens["cls"]], [tokens["sep"]]


def _around_whisper(config: Config, tokens: Mapping[str, str]) -> Around:
    """The start, then what the configuration says of the language and the task."""
    said = [config.get("language"), config.get("task")]
    times = [] if config.get("predict_timestamps") else ["notimestamps"]
    words = ["startoftranscript", *filter(None, said), *times]
    return [f"<|{word}|>" for word in words], [tokens["eos"]]


@dataclass(frozen=True)
class TokenizerFamily:
    """A family of tokenizers.

    Args:
        build: folder and tokenizer_config.json to what is built.
        around: configuration and special tokens to the tokens before and after a text.
    """

    build: Callable[[Path, Config], Built]
    around: Callable[[Config, Mapping[str, str]], Around] = field(default=_around_nothing)


def _bpe_files(folder: Path) -> tuple[dict[str, int], list[tuple[str, str]]]:
    vocabulary = read_vocabulary(folder / "vocab.json")
    merges = []
    # Not splitlines: it also cuts at characters that a token may hold.
    for number, line in enumerate(read_text(folder / "merges.txt").split("\n"), start=1):
        if not line.strip() or (number == 1 and line.startswith("#version")):
            continue
        parts = line.rstrip("\r").split(" ")
        if len(parts) != 2:
            raise TokenizerError(
                f"{folder / 'merges.txt'}: line {number} is {line!r:.80}, and two tokens with a "
                f"space between are expected."
            )
        merges.append((parts[0], parts[1]))
        missing = [part for part in parts if part not in vocabulary]
        if missing:
            raise TokenizerError(
                f"{folder / 'merges.txt'}: line {number} merges {missing[0]!r:.80}, and vocab.json "
                f"has no such token: the two files are not of one model."
            )
    return vocabulary, merges


def read_vocabulary(path: Path) -> dict[str, int]:
    """A vocab.json: token to id, each id once.

    Raises:
        TokenizerError: if it is none.
    """
    vocabulary = read_optional_json(path)
    numbers = set(vocabulary.values())
    if not all(type(n) is int and 0 <= n < LARGEST_VOCABULARY for n in vocabulary.values()):
        raise TokenizerError(f"{path}: an id is no number from 0 to {LARGEST_VOCABULARY}.")
    if not vocabulary or len(numbers) < len(vocabulary):
        raise TokenizerError(f"{path}: it is empty, or an id occurs twice.")
    return vocabulary


def _byte_level(cut: str, tokens: Mapping[str, str]) -> Callable[[Path, Config], Built]:
    def build(folder: Path, config: Config) -> Built:
        vocabulary, merges = _bpe_files(folder)
        prefix = bool(config.get("add_prefix_space"))
        return Built(tokenizer_models.byte_level_bpe(vocabulary, merges, cut, prefix), tokens)

    return build


def _clip(folder: Path, config: Config) -> Built:
    backend = tokenizer_models.clip_bpe(*_bpe_files(folder), unk_token=_END)
    return Built(backend, SPECIAL_TOKENS["clip"])


def _bert(folder: Path, config: Config) -> Built:
    tokens = SPECIAL_TOKENS["bert"]
    lines = read_text(folder / "vocab.txt").removesuffix("\n").split("\n")
    backend = tokenizer_models.wordpiece(
        {line.rstrip("\r"): number for number, line in enumerate(lines)},
        unk_token=_content(config.get("unk_token")) or tokens["unk"],
        lowercase=config.get("do_lower_case", True),
        chinese_characters=config.get("tokenize_chinese_chars", True),
        strip_accents=config.get("strip_accents"),
    )
    return Built(backend, tokens)


def _content(token: Any) -> str | None:
    return token.get("content") if isinstance(token, dict) else token


def _read_model(path: Path) -> SentencePieceModel:
    with foreign_errors(str(path)):
        return tokenizer_sentencepiece.read_sentencepiece(read_bytes(path))


def _sentencepiece(folder: Path, config: Config) -> Built:
    path = next(p for p in (folder / "tokenizer.model", folder / "spiece.model") if p.is_file())
    model = _read_model(path)
    with foreign_errors(str(path)):
        return built_from_pieces(model, prefix_once=config.get("legacy") is False)


def built_from_pieces(model: SentencePieceModel, prefix_once: bool = False) -> Built:
    """A SentencePiece model's tokenizer, with the special tokens that it names by id."""
    ids = {"unk": model.unk_id, "bos": model.bos_id, "eos": model.eos_id, "pad": model.pad_id}
    tokens = {
        role: model.pieces[number].text
        for role, number in ids.items()
        if 0 <= number < len(model.pieces)
    }
    return Built(tokenizer_sentencepiece.build_sentencepiece(model, prefix_once), tokens)


def _t5(folder: Path, config: Config) -> Built:
    path = next(p for p in (folder / "spiece.model", folder / "tokenizer.model") if p.is_file())
    model = _read_model(path)
    count = config.get("extra_ids", 100)
    if type(count) is not int or not 0 <= count <= 10_000:
        raise TokenizerError(f"{folder / 'tokenizer_config.json'}: extra_ids is {count!r}.")
    # The blanks of its pre-training, counted down behind the vocabulary.
    extra = [f"<extra_id_{number}>" for number in reversed(range(count))]
    pieces = (*model.pieces, *(Piece(e, 0.0, tokenizer_sentencepiece.CONTROL) for e in extra))
    with foreign_errors(str(path)):
        return built_from_pieces(dataclasses.replace(model, pieces=pieces))


def _marian(folder: Path, config: Config) -> Built:
    """Ids of vocab.json, which has the pieces of both languages; the cuts of source.spm.

    A piece that only the other language has is never preferred to those of its own. Left out: the
    clean-up of punctuation by sacremoses.
    """
    ids = read_vocabulary(folder / "vocab.json")
    if sorted(ids.values()) != list(range(len(ids))) or "<unk>" not in ids:
        raise TokenizerError(f"{folder / 'vocab.json'}: the ids have gaps, or <unk> is missing.")
    backends = []
    for name in ("source.spm", "target.spm"):
        model = _read_model(folder / name)
        own = {piece.text: piece for piece in model.pieces}
        pieces = tuple(_marian_piece(token, own) for token in sorted(ids, key=ids.__getitem__))
        renumbered = dataclasses.replace(model, pieces=pieces, unk_id=ids["<unk>"])
        with foreign_errors(str(folder / name)):
            backends.append(tokenizer_sentencepiece.build_sentencepiece(renumbered))
    return Built(backends[0], SPECIAL_TOKENS["marian"], backends[1])


def _marian_piece(token: str, own: Mapping[str, Piece]) -> Piece:
    if token == "<unk>":
        return Piece(token, 0.0, tokenizer_sentencepiece.UNKNOWN)
    # >>fra<< at the start asks a model of several languages for French.
    if token in ("</s>", "<pad>") or (token.startswith(">>") and token.endswith("<<")):
        return Piece(token, 0.0, tokenizer_sentencepiece.CONTROL)
    return own.get(token, Piece(token, 0.0, tokenizer_sentencepiece.UNUSED))


_GPT2 = TokenizerFamily(_byte_level("gpt2", _GPT))
_ROBERTA = TokenizerFamily(_byte_level("gpt2", _BART), _around_cls_sep)
_LLAMA = TokenizerFamily(_sentencepiece, _around_bos)

FAMILIES: Mapping[str, TokenizerFamily] = {
    "gpt2": _GPT2,
    "roberta": _ROBERTA,
    "bart": _ROBERTA,
    "clip": TokenizerFamily(_clip, _around_bos_eos),
    "whisper": TokenizerFamily(_byte_level("gpt2", _GPT), _around_whisper),
    "qwen2": TokenizerFamily(_byte_level("qwen2", SPECIAL_TOKENS["qwen2"])),
    "bert": TokenizerFamily(_bert, _around_cls_sep),
    "distilbert": TokenizerFamily(_bert, _around_cls_sep),
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "gemma": _LLAMA,
    "t5": TokenizerFamily(_t5, _around_eos),
    "mt5": TokenizerFamily(_t5, _around_eos),
    "marian": TokenizerFamily(_marian, _around_eos),
}
