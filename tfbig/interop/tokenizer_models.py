"""The tokenizers of the families, built from their vocabularies: BPE and WordPiece.

Each family cuts a text in its own way before its merges apply; a wrong cut gives other ids and no
error. So each is built here as its authors published it, and the tests compare the ids with those
of Transformers. SentencePiece's are in `tokenizer_sentencepiece`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from tfbig.interop.tokenizer import require_tokenizers

Merges = Sequence[tuple[str, str]]

# Into what each family cuts a text, from its tokenizer.json. None: GPT-2's, which is built in.
_SPLIT_GPT2 = None
_SPLIT_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_SPLIT_QWEN2 = _SPLIT_LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
_SPLIT_TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_SPLITS = {"gpt2": _SPLIT_GPT2, "smollm": _SPLIT_GPT2, "llama3": _SPLIT_LLAMA3}
_SPLITS |= {"qwen2": _SPLIT_QWEN2, "tekken": _SPLIT_TEKKEN}
CUTS = frozenset(_SPLITS)


def byte_level_bpe(
    vocabulary: Mapping[str, int], merges: Merges, cut: str = "gpt2", add_prefix_space: bool = False
) -> Any:
    """BPE over the bytes of a text: GPT-2's and most since. Every text comes back from it.

    Args:
        vocabulary: token to id; a token spells each byte by one letter (GPT-2's alphabet).
        merges: the pairs, first the one that is merged first.
        cut: into what a text is cut first, by the family: `"gpt2"` (also RoBERTa, Whisper),
            `"smollm"` (each digit alone, then as GPT-2), `"llama3"`, `"qwen2"`, `"tekken"`.
        add_prefix_space: to cut a text's first word as if a space stood before it.

    Source: Radford et al. 2019, "Language Models are Unsupervised Multitask Learners".

    >>> bpe = byte_level_bpe({"a": 0, "b": 1, "Ġ": 2, "ab": 3}, [("a", "b")])
    >>> bpe.encode("ab a").ids
    [3, 2, 0]
    """
    tokenizers = require_tokenizers()
    # Llama 3 and Tekken list tokens that their merges do not reach.
    whole_first = cut in ("llama3", "tekken")
    model = tokenizers.models.BPE(dict(vocabulary), list(merges), ignore_merges=whole_first)
    backend = tokenizers.Tokenizer(model)
    pre = tokenizers.pre_tokenizers
    split = _SPLITS[cut]
    if split is None:
        byte_level = pre.ByteLevel(add_prefix_space=add_prefix_space)
        digits = [pre.Digits(individual_digits=True)] if cut == "smollm" else []
        cuts = [*digits, byte_level]
    else:
        pattern = tokenizers.Regex(split)
        byte_level = pre.ByteLevel(add_prefix_space=add_prefix_space, use_regex=False)
        cuts = [pre.Split(pattern, behavior="isolated"), byte_level]
    if cut == "qwen2":
        backend.normalizer = tokenizers.normalizers.NFC()
    backend.pre_tokenizer = pre.Sequence(cuts)
    backend.decoder = tokenizers.decoders.ByteLevel()
    return backend


def clip_bpe(vocabulary: Mapping[str, int], merges: Merges, unk_token: str) -> Any:
    """CLIP's BPE: in lower case, spaces dropped, and the last token of a word ends in `</w>`.

    Source: Radford et al. 2021, "Learning Transferable Visual Models". Left out: its repair of
    broken Unicode (ftfy), as in Transformers.

    >>> clip = clip_bpe({"a": 0, "b</w>": 1, "ab</w>": 2, "?": 3}, [("a", "b</w>")], "?")
    >>> clip.encode("AB  ab").ids, clip.decode([2, 2])
    ([2, 2], 'ab ab')
    """
    tokenizers = require_tokenizers()
    norm, pre = tokenizers.normalizers, tokenizers.pre_tokenizers
    model = tokenizers.models.BPE(
        dict(vocabulary), list(merges), unk_token=unk_token, end_of_word_suffix="</w>"
    )
    backend = tokenizers.Tokenizer(model)
    spaces = norm.Replace(tokenizers.Regex(r"\s+"), " ")
    backend.normalizer = norm.Sequence([norm.NFC(), spaces, norm.Lowercase()])
    word = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
    split = pre.Split(tokenizers.Regex(word), behavior="removed", invert=True)
    backend.pre_tokenizer = pre.Sequence([split, pre.ByteLevel(add_prefix_space=False)])
    backend.decoder = word_end_decoder("</w>")
    return backend


def word_end_decoder(suffix: str) -> Any:
    """Byte-level decoding for a BPE that marks the ends of words: the mark becomes a space.

    CLIP's own tokenizer.json leaves it out, and `a</w>` comes back as it is.

    >>> word_end_decoder("</w>").decode(["a</w>", "b</w>"])
    'a b'
    """
    tokenizers = require_tokenizers()
    decoders = tokenizers.decoders
    # Not decoders.Strip: it panics on an empty text (tokenizers 0.23).
    ends = decoders.Replace(tokenizers.Regex(r"\A +| +\z"), "")
    return decoders.Sequence([decoders.ByteLevel(), decoders.Replace(suffix, " "), ends])


def wordpiece(
    vocabulary: Mapping[str, int],
    unk_token: str = "[UNK]",
    lowercase: bool = True,
    chinese_characters: bool = True,
    strip_accents: bool | None = None,
) -> Any:
    """BERT's WordPiece: the longest pieces from the left; those inside a word start with `##`.

    Args:
        vocabulary: token to id.
        unk_token: stands for a word that no pieces make up.
        lowercase: the "uncased" models.
        chinese_characters: to take each as a word.
        strip_accents: None for what `lowercase` is, as BERT has it.

    Source: Devlin et al. 2019, "BERT", and its tokenization.py.

    >>> bert = wordpiece({"[UNK]": 0, "play": 1, "##ing": 2})
    >>> bert.encode("Playing chess").tokens
    ['play', '##ing', '[UNK]']
    """
    tokenizers = require_tokenizers()
    model = tokenizers.models.WordPiece(dict(vocabulary), unk_token=unk_token)
    backend = tokenizers.Tokenizer(model)
    backend.normalizer = tokenizers.normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=chinese_characters,
        strip_accents=strip_accents,
        lowercase=lowercase,
    )
    backend.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    backend.decoder = tokenizers.decoders.WordPiece(prefix="##")
    return backend


def surround(backend: Any, before: Sequence[str] = (), after: Sequence[str] = ()) -> None:
    """Has `encode` put special tokens around a text: [CLS] before and [SEP] after, say.

    Args:
        backend: a `tokenizers.Tokenizer` whose vocabulary has these tokens; it is changed.
        before: tokens, as the vocabulary spells them.
        after: the same.

    >>> backend = wordpiece({"[UNK]": 0, "[CLS]": 1, "hi": 2})
    >>> surround(backend, before=["[CLS]"])
    >>> backend.encode("hi").ids
    [1, 2]
    """
    tokens = [(token, backend.token_to_id(token)) for token in {*before, *after}]
    single = [*before, "$A", *after]
    backend.post_processor = require_tokenizers().processors.TemplateProcessing(
        single=single,
        pair=[*single, *("$B:1", *(f"{token}:1" for token in after))],
        special_tokens=tokens,
    )
