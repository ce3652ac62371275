"""A tokenizer from the files of a model's folder, and back into them.

tokenizer.json (of `tokenizers`) says all, and is taken where there is one. Older folders have the
bare vocabulary of their family, and how to cut a text is known from the family's name:

    vocab.json, merges.txt              GPT-2, RoBERTa, BART, CLIP, Whisper, Qwen2
    vocab.txt                           BERT, DistilBERT
    tokenizer.model, spiece.model       Llama, Mistral, Gemma, T5
    source.spm, target.spm, vocab.json  Marian

The family is `tokenizer_class` of tokenizer_config.json, else `model_type` of config.json. The
special tokens are those of tokenizer_config.json, else of special_tokens_map.json, else the
family's; one that the vocabulary does not have is left out, and no id is invented for it. No code
of a folder is run. The oracle of the tests is Transformers.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tfbig.interop import tokenizer_models
from tfbig.interop.tokenizer import (
    SpecialTokens,
    Tokenizer,
    TokenizerError,
    foreign_errors,
    require_tokenizers,
)
from tfbig.interop.tokenizer_families import FAMILIES, SPECIAL_TOKENS, Built, TokenizerFamily
from tfbig.interop.tokenizer_text_files import read_optional_json, read_text, write_text

_ROLES = ("bos", "eos", "pad", "unk", "mask", "sep", "cls")

# The files of a bare vocabulary, and its family where nothing tells the name; None: must be told.
_VOCABULARIES: Mapping[tuple[str, ...], str | None] = {
    ("source.spm", "target.spm", "vocab.json"): "marian",
    ("vocab.json", "merges.txt"): "gpt2",
    ("vocab.txt",): "bert",
    ("tokenizer.model",): "llama",
    ("spiece.model",): None,
}
# Classes that say nothing of the family.
_GENERIC = ("", "pretrainedtokenizer", "pretrained", "tokenizersbackend")


def load_tokenizer(folder: str | Path) -> Tokenizer | None:
    """The tokenizer of a model's folder.

    Args:
        folder: with the files of a model, as Hugging Face names them.

    Returns:
        The tokenizer; None where the folder has no tokenizer's files.

    Raises:
        TokenizerError: if a file is damaged, or the family is not read, or the folder has only code
            of its own to cut texts with; it names the file.
        ImportError: if there is no package `tokenizers`.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> load_tokenizer(folder) is None
    True
    >>> _ = (folder / "vocab.txt").write_text("[PAD]\\n[UNK]\\n[CLS]\\n[SEP]\\n[MASK]\\nhello\\n")
    >>> load_tokenizer(folder).encode("Hello")
    [2, 5, 3]
    """
    folder = Path(folder)
    with foreign_errors(str(folder)):
        return _load(folder)


def _load(folder: Path) -> Tokenizer | None:
    config = read_optional_json(folder / "tokenizer_config.json")
    if (folder / "tokenizer.json").is_file():
        target = folder / "tokenizer_target.json"
        built = Built(
            backend=_read_backend(folder / "tokenizer.json"),
            tokens=_tokens_of_the_family(folder, config),
            target=_read_backend(target) if target.is_file() else None,
        )
        family = None
    elif "auto_map" in config:
        raise TokenizerError(
            f"{folder / 'tokenizer_config.json'}: its auto_map names code to run, and none is run. "
            f"Where you trust the code, make a tokenizer.json once: AutoTokenizer.from_pretrained"
            f"(..., trust_remote_code=True).save_pretrained(...)."
        )
    else:
        family = _family(folder, config)
        if family is None:
            return None
        built = family.build(folder, config)
    named = {**built.tokens, **_named_tokens(folder, config)}
    for backend in filter(None, (built.backend, built.target)):
        _add_tokens(backend, folder, config, named)
        if family is not None:
            before, after = family.around(config, named)
            tokenizer_models.surround(backend, before, after)
    special = special_ids(built.backend, named)
    return Tokenizer(
        backend=built.backend,
        special=special,
        eos_ids=_eos_ids(folder, config, special),
        chat_template=_chat_template(folder, config),
        target=built.target,
    )


def special_ids(backend: Any, named: Mapping[str, str]) -> SpecialTokens:
    """The ids of special tokens that are given by role; None for what the vocabulary has not.

    >>> from tfbig.interop.tokenizer_models import wordpiece
    >>> special_ids(wordpiece({"[UNK]": 0, "a": 1}), {"unk": "[UNK]", "pad": "[PAD]"}).unk_id
    0
    """
    return SpecialTokens(**{f"{r}_id": backend.token_to_id(token) for r, token in named.items()})


def _family(folder: Path, config: Mapping[str, Any]) -> TokenizerFamily | None:
    present = [names for names in _VOCABULARIES if all((folder / name).is_file() for name in names)]
    if not present:
        return None
    name = _class_name(config)
    if name in _GENERIC:
        name = _model_type(folder)
    name = name or _VOCABULARIES[present[0]] or ""
    if name not in FAMILIES:
        raise TokenizerError(
            f"{folder}: there is no tokenizer.json, and from {', '.join(present[0])} the families "
            f"{', '.join(FAMILIES)} are read; the files say {name or 'none'!r}. Make a "
            f"tokenizer.json: AutoTokenizer.from_pretrained(...).save_pretrained(...)."
        )
    return FAMILIES[name]


def _class_name(config: Mapping[str, Any]) -> str:
    said = str(config.get("tokenizer_class") or "").removesuffix("Fast").removesuffix("Tokenizer")
    return said.lower()


def _model_type(folder: Path) -> str:
    return str(read_optional_json(folder / "config.json").get("model_type") or "")


def _tokens_of_the_family(folder: Path, config: Mapping[str, Any]) -> dict[str, str]:
    """What the family's class adds to a tokenizer.json; a generic class adds nothing.

    A role that the configuration has as null is to have no token.
    """
    name = _class_name(config) or _model_type(folder).replace("-", "")
    tokens = SPECIAL_TOKENS.get(name, {})
    null = [role for role in tokens if config.get(f"{role}_token", "") is None]
    return {role: token for role, token in tokens.items() if role not in null}


def _read_backend(path: Path) -> Any:
    tokenizers = require_tokenizers()
    with foreign_errors(str(path)):
        backend = tokenizers.Tokenizer.from_str(read_text(path))
        is_bpe = isinstance(backend.model, tokenizers.models.BPE)
        suffix = backend.model.end_of_word_suffix if is_bpe else None
        if suffix and isinstance(backend.decoder, tokenizers.decoders.ByteLevel):
            backend.decoder = tokenizer_models.word_end_decoder(suffix)
        return backend


def _named_tokens(folder: Path, config: Mapping[str, Any]) -> dict[str, str]:
    """The special tokens by role, of the two files that may name them."""
    named = {}
    for source in (read_optional_json(folder / "special_tokens_map.json"), config):
        for role in _ROLES:
            token = source.get(f"{role}_token")
            content = token.get("content") if isinstance(token, dict) else token
            if isinstance(content, str):
                named[role] = content
    return named


def _add_tokens(
    backend: Any, folder: Path, config: Mapping[str, Any], named: Mapping[str, str]
) -> None:
    """Has the backend find special and added tokens in a text before it is cut."""
    make = require_tokenizers().AddedToken
    ways = ("special", "lstrip", "rstrip", "single_word", "normalized")
    listed = dict(sorted(_listed_tokens(folder, config), key=lambda pair: pair[0]))
    backend.add_tokens(
        [make(t["content"], **{way: bool(t.get(way)) for way in ways}) for t in listed.values()]
    )
    for number, token in listed.items():
        if backend.token_to_id(token["content"]) != number:
            raise TokenizerError(
                f"{folder}: the added token {token['content']!r} is to have the id {number}, and "
                f"by the vocabulary it gets {backend.token_to_id(token['content'])}."
            )
    known = {token.content for token in backend.get_added_tokens_decoder().values()}
    extra = [
        make(content, special=True, normalized=False)
        for content in sorted({*named.values(), *_additional(config)})
        if content not in known and backend.token_to_id(content) is not None
    ]
    backend.add_special_tokens(extra)


def _listed_tokens(
    folder: Path, config: Mapping[str, Any]
) -> Iterable[tuple[int, Mapping[str, Any]]]:
    """(id, token) of those that are added to the vocabulary, of the two files that list them."""
    listed = config.get("added_tokens_decoder") or {}
    for number, token in listed.items():
        yield int(number), token
    contents = {token["content"] for token in listed.values()}
    for content, number in read_optional_json(folder / "added_tokens.json").items():
        if content not in contents:
            # The file does not say which are special; in this form models write them <like this>.
            special = content.startswith("<") and content.endswith(">")
            yield number, {"content": content, "special": special}


def _additional(config: Mapping[str, Any]) -> list[str]:
    listed = config.get("additional_special_tokens") or []
    contents = [t.get("content") if isinstance(t, dict) else t for t in listed]
    return [content for content in contents if isinstance(content, str)]


def _eos_ids(folder: Path, config: Mapping[str, Any], special: SpecialTokens) -> frozenset[int]:
    said = [special.eos_id, config.get("eos_token_ids")]
    for name in ("generation_config.json", "config.json"):
        said.append(read_optional_json(folder / name).get("eos_token_id"))
    flat = [i for one in said for i in (one if isinstance(one, list) else [one])]
    return frozenset(i for i in flat if type(i) is int)


def _chat_template(folder: Path, config: Mapping[str, Any]) -> str | None:
    if (folder / "chat_template.jinja").is_file():
        return read_text(folder / "chat_template.jinja")
    said = config.get("chat_template")
    if isinstance(said, list):  # several, by name
        said = next((t.get("template") for t in said if t.get("name") == "default"), None)
    return said if isinstance(said, str) else None


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Writes a tokenizer's files; see `Tokenizer.save`."""
    folder.mkdir(parents=True, exist_ok=True)
    named = {f"{role}_token": tokenizer.id_token(i) for role, i in tokenizer.special.items()}
    config = {
        # The class that reads tokenizer.json as it is.
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        **named,
        "eos_token_ids": sorted(tokenizer.eos_ids),
    }
    if tokenizer.chat_template is not None:
        config["chat_template"] = tokenizer.chat_template
    write_text(folder / "tokenizer.json", tokenizer.backend.to_str(pretty=True))
    if tokenizer.target is not None:
        write_text(folder / "tokenizer_target.json", tokenizer.target.to_str(pretty=True))
    write_text(folder / "tokenizer_config.json", json.dumps(config, indent=2, ensure_ascii=False))
    write_text(folder / "special_tokens_map.json", json.dumps(named, indent=2, ensure_ascii=False))
