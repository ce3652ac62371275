"""A tokenizer from the metadata of a GGUF file.

GGUF (llama.cpp) keeps the vocabulary, the merges and the special ids, and of the way to cut a text
only a name, `tokenizer.ggml.pre`. What the name means is llama.cpp's `llama-vocab.cpp`, which in
turn follows each model's tokenizer.json; so do we, and read the names in `_CUTS`.

Transformers 5.24 does not know all of them: for "smollm" (SmolLM2) it cuts numbers as GPT-2 does,
though the model learnt each digit alone. Of ASCII digits both make the same ids, since SmolLM2 has
no token of two; of " ²" Transformers makes [3351, 127], and the model was trained on [216, 19133].
"""

from collections.abc import Mapping
from typing import Any

from tfbig.interop import tokenizer_families, tokenizer_models
from tfbig.interop.tokenizer import (
    SpecialTokens,
    Tokenizer,
    TokenizerError,
    foreign_errors,
    require_tokenizers,
)
from tfbig.interop.tokenizer_sentencepiece import (
    BYTE,
    CONTROL,
    NORMAL,
    SPACE,
    USER_DEFINED,
    Piece,
    SentencePieceModel,
)

_CUTS = {
    **dict.fromkeys(("gpt-2", "gpt2", "mpt", "olmo", "jais"), "gpt2"),
    **dict.fromkeys(("smollm", "starcoder", "refact", "command-r", "codeshell"), "smollm"),
    **dict.fromkeys(("llama-bpe", "llama3", "llama-v3", "falcon3"), "llama3"),
    **dict.fromkeys(("qwen2", "deepseek-r1-qwen", "megrez"), "qwen2"),
    "tekken": "tekken",
}
_ROLES = {
    "bos": "bos_token_id",
    "eos": "eos_token_id",
    "pad": "padding_token_id",
    "unk": "unknown_token_id",
    "mask": "mask_token_id",
    "sep": "seperator_token_id",  # so spelled in the format
    "cls": "cls_token_id",
}


def tokenizer_from_gguf(metadata: Mapping[str, Any]) -> Tokenizer:
    """The tokenizer that a GGUF file describes.

    Args:
        metadata: the file's, as plain Python values; read are the keys `tokenizer.*`.

    Raises:
        TokenizerError: if a field is missing, damaged, or of a kind that is not read; it names it.
        ImportError: if there is no package `tokenizers`.

    >>> tokenizer = tokenizer_from_gguf({
    ...     "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "smollm",
    ...     "tokenizer.ggml.tokens": ["<|end|>", "1", "2", "12"], "tokenizer.ggml.merges": ["1 2"],
    ...     "tokenizer.ggml.token_type": [3, 1, 1, 1], "tokenizer.ggml.eos_token_id": 0})
    >>> tokenizer.encode("12<|end|>"), tokenizer.eos_ids
    ([1, 2, 0], frozenset({0}))
    """
    with foreign_errors("tokenizer.ggml"):
        return _from_metadata(metadata)


def _from_metadata(metadata: Mapping[str, Any]) -> Tokenizer:
    kind = metadata.get("tokenizer.ggml.model")
    builders = {"gpt2": _byte_level, "llama": _llama, "t5": _llama, "bert": _bert}
    if kind not in builders:
        raise TokenizerError(
            f"tokenizer.ggml.model is {kind!r}, and of a GGUF file {', '.join(builders)} are read."
        )
    tokens = _strings(metadata, "tokenizer.ggml.tokens")
    if not tokens or len(set(tokens)) < len(tokens):
        raise TokenizerError("tokenizer.ggml.tokens is empty, or a token occurs twice.")
    special = SpecialTokens(
        **{f"{r}_id": _id(metadata, f"tokenizer.ggml.{key}", tokens) for r, key in _ROLES.items()}
    )
    backend = builders[kind](metadata, tokens)
    _add_tokens(backend, metadata, tokens)
    _add_around(backend, metadata, special)
    ends = [_id(metadata, f"tokenizer.ggml.{e}_token_id", tokens) for e in ("eos", "eot", "eom")]
    template = metadata.get("tokenizer.chat_template")
    return Tokenizer(
        backend=backend,
        special=special,
        eos_ids=frozenset(number for number in ends if number is not None),
        chat_template=template if isinstance(template, str) else None,
    )


def _strings(metadata: Mapping[str, Any], key: str) -> list[str]:
    value = metadata.get(key)
    if not isinstance(value, list | tuple) or not all(isinstance(one, str) for one in value):
        raise TokenizerError(f"{key} is to be a list of strings, and it is {value!r:.60}.")
    return list(value)


def _numbers(metadata: Mapping[str, Any], key: str, count: int, default: float) -> list[float]:
    value = metadata.get(key)
    if value is None:
        return [default] * count
    numbers = list(value) if isinstance(value, list | tuple) else []
    if len(numbers) != count or not all(isinstance(one, int | float) for one in numbers):
        raise TokenizerError(f"{key} is to be a list of {count} numbers, one for each token.")
    return numbers


def _id(metadata: Mapping[str, Any], key: str, tokens: list[str]) -> int | None:
    value = metadata.get(key)
    if value is None:
        return None
    if type(value) is not int or not 0 <= value < len(tokens):
        raise TokenizerError(f"{key} is {value!r}, and there are {len(tokens)} tokens.")
    return value


def _byte_level(metadata: Mapping[str, Any], tokens: list[str]) -> Any:
    pre = metadata.get("tokenizer.ggml.pre", "gpt-2")  # older files have none
    if pre not in _CUTS:
        raise TokenizerError(
            f"tokenizer.ggml.pre is {pre!r}: how it cuts a text is not known here; known are "
            f"{', '.join(_CUTS)}. Take the model's folder with a tokenizer.json."
        )
    vocabulary = {token: number for number, token in enumerate(tokens)}
    merges = []
    for merge in _strings(metadata, "tokenizer.ggml.merges"):
        left, _, right = merge.partition(" ")
        if left not in vocabulary or right not in vocabulary:
            raise TokenizerError(f"tokenizer.ggml.merges has {merge!r:.60}: no two of its tokens.")
        merges.append((left, right))
    return tokenizer_models.byte_level_bpe(vocabulary, merges, _CUTS[pre])


def _llama(metadata: Mapping[str, Any], tokens: list[str]) -> Any:
    """SentencePiece: "llama" is its BPE, "t5" its unigram.

    As in llama.cpp, a text gets its space in front after each special token, too.
    """
    kinds = [int(k) for k in _numbers(metadata, "tokenizer.ggml.token_type", len(tokens), NORMAL)]
    scores = _numbers(metadata, "tokenizer.ggml.scores", len(tokens), 0.0)
    # Gemma's files spell tokens that are only spaces with spaces.
    texts = [token.replace(" ", SPACE) if not token.strip(" ") else token for token in tokens]
    unk = metadata.get("tokenizer.ggml.unknown_token_id")
    charsmap = metadata.get("tokenizer.ggml.precompiled_charsmap") or b""
    model = SentencePieceModel(
        pieces=tuple(map(Piece, texts, scores, kinds)),
        is_bpe=metadata["tokenizer.ggml.model"] == "llama",
        byte_fallback=BYTE in kinds,
        unk_id=unk if unk is not None else kinds.index(2) if 2 in kinds else 0,
        charsmap=bytes(number & 0xFF for number in charsmap),  # int8 or uint8
        add_dummy_prefix=bool(metadata.get("tokenizer.ggml.add_space_prefix", True)),
        remove_extra_whitespaces=bool(
            metadata.get("tokenizer.ggml.remove_extra_whitespaces", False)
        ),
    )
    return tokenizer_families.built_from_pieces(model).backend


def _bert(metadata: Mapping[str, Any], tokens: list[str]) -> Any:
    """llama.cpp marks the starts of words, WordPiece what is inside them: turned back."""
    vocabulary = {}
    for number, token in enumerate(tokens):
        if token.startswith(SPACE):
            token = token[1:]
        elif not (token.startswith("[") and token.endswith("]")):
            token = "##" + token
        vocabulary[token] = number
    # The format does not say it; an "uncased" vocabulary has no capital letter.
    plain = [token for token in vocabulary if not token.startswith("[")]
    unk = tokens[metadata.get("tokenizer.ggml.unknown_token_id", vocabulary.get("[UNK]", 0))]
    lowercase = not any("A" <= letter <= "Z" for token in plain for letter in token)
    return tokenizer_models.wordpiece(vocabulary, unk_token=unk, lowercase=lowercase)


def _add_tokens(backend: Any, metadata: Mapping[str, Any], tokens: list[str]) -> None:
    """Control tokens are special; what the user defined is found whole in a text, too."""
    make = require_tokenizers().AddedToken
    added = []
    kinds = _numbers(metadata, "tokenizer.ggml.token_type", len(tokens), NORMAL)
    known = {token.content for token in backend.get_added_tokens_decoder().values()}
    sentencepiece = metadata["tokenizer.ggml.model"] in ("llama", "t5")
    for token, kind in zip(tokens, kinds, strict=True):
        if token in known or backend.token_to_id(token) is None:
            continue
        if kind == CONTROL or (kind == USER_DEFINED and not sentencepiece):
            added.append(make(token, normalized=False, special=kind == CONTROL))
    backend.add_tokens(added)


def _add_around(backend: Any, metadata: Mapping[str, Any], special: SpecialTokens) -> None:
    kind, pre = metadata["tokenizer.ggml.model"], metadata.get("tokenizer.ggml.pre", "")
    # Where a file does not say: what llama.cpp does for the kind.
    bos = kind in ("llama", "bert") or _CUTS.get(pre) in ("llama3", "tekken")
    first = special.bos_id if special.bos_id is not None else special.cls_id
    last = special.sep_id if kind == "bert" and special.sep_id is not None else special.eos_id
    wants_bos = metadata.get("tokenizer.ggml.add_bos_token", bos) and first is not None
    wants_eos = metadata.get("tokenizer.ggml.add_eos_token", kind in ("t5", "bert"))
    tokenizer_models.surround(
        backend,
        before=[backend.id_to_token(first)] if wants_bos else [],
        after=[backend.id_to_token(last)] if wants_eos and last is not None else [],
    )
