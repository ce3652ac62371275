"""Special tokens where tokenizer_config.json names none, padding without one, and long pieces."""

import dataclasses
import json
import time

import pytest

from tests.interop import small_tokenizers as small
from tfbig.interop import tokenizer_models
from tfbig.interop.tokenizer import SpecialTokens, TokenizerError
from tfbig.interop.tokenizer_files import load_tokenizer
from tfbig.interop.tokenizer_gguf import tokenizer_from_gguf
from tfbig.interop.tokenizer_sentencepiece import (
    Piece,
    SentencePieceModel,
    build_sentencepiece,
    merges_by_score,
)

BERT = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
BART = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
ROLES = ("bos", "eos", "pad", "unk", "mask", "sep", "cls")


def folder(path, tokens, model_type, config):
    """A tokenizer.json beside configs that say no more than those of the hub do."""
    path.mkdir()
    vocabulary = {token: number for number, token in enumerate([*tokens, "a", "b"])}
    if tokens is BERT:
        backend = tokenizer_models.wordpiece(vocabulary)
    elif model_type == "xlm-roberta":
        pieces = tuple(Piece(token, -1.0) for token in vocabulary)
        model = SentencePieceModel(pieces, is_bpe=False, unk_id=vocabulary["<unk>"])
        backend = build_sentencepiece(model)
    else:
        backend = tokenizer_models.byte_level_bpe(vocabulary, [])
    backend.add_special_tokens(list(tokens))
    backend.save(str(path / "tokenizer.json"))
    (path / "tokenizer_config.json").write_text(json.dumps(config))
    (path / "config.json").write_text(json.dumps({"model_type": model_type}))
    return path


# Name: the tokens, and the ids by hand of bos, eos, pad, unk, mask, sep, cls.
HUB = {
    "bert": (BERT, (None, None, 0, 1, 4, 3, 2)),
    "distilbert": (BERT, (None, None, 0, 1, 4, 3, 2)),
    "roberta": (BART, (0, 2, 1, 3, 4, 2, 0)),
    "xlm-roberta": (BART, (0, 2, 1, 3, 4, 2, 0)),
    "gpt2": ([small.END], (0, 0, None, 0, None, None, None)),
}


@pytest.mark.parametrize("name", HUB)
def test_what_no_file_says_is_that_of_the_family(name, tmp_path):
    tokens, expected = HUB[name]
    path = folder(tmp_path / "model", tokens, name, {"model_max_length": 512})
    ours = load_tokenizer(path)
    assert tuple(getattr(ours.special, f"{role}_id") for role in ROLES) == expected
    assert ours.eos_ids == ({expected[1]} if expected[1] is not None else set())
    transformers = pytest.importorskip("transformers", reason="it is the oracle")
    theirs = transformers.AutoTokenizer.from_pretrained(path)
    assert tuple(getattr(theirs, f"{role}_token_id") for role in ROLES) == expected


@pytest.mark.parametrize(
    ("config", "pad_id"),
    [
        ({"tokenizer_class": "RobertaTokenizer"}, 1),
        ({"tokenizer_class": "RobertaTokenizerFast", "pad_token": "a"}, 5),
        ({"tokenizer_class": "RobertaTokenizer", "pad_token": None}, None),
        # A class of no family: what is not named is not there.
        ({"tokenizer_class": "PreTrainedTokenizerFast"}, None),
        ({"tokenizer_class": "SomeTokenizer"}, None),
    ],
)
def test_the_files_count_more_than_the_family(config, pad_id, tmp_path):
    path = folder(tmp_path / "model", BART, "roberta", config)
    assert load_tokenizer(path).special.pad_id == pad_id


def test_a_saved_tokenizer_has_no_more_than_it_had(tmp_path):
    ours = load_tokenizer(folder(tmp_path / "model", [small.END, "<pad>"], "gpt2", {}))
    none = dataclasses.replace(ours, special=SpecialTokens(), eos_ids=frozenset())
    none.save(tmp_path / "saved")
    (tmp_path / "saved" / "config.json").write_text('{"model_type": "gpt2"}')
    assert load_tokenizer(tmp_path / "saved").special == SpecialTokens()


def test_no_padding_token_is_told_and_not_invented(tmp_path):
    tokenizer = load_tokenizer(folder(tmp_path / "model", [small.END], "gpt2", {}))
    with pytest.raises(TokenizerError, match="no padding token. Give pad_id="):
        tokenizer.pad([[1, 2], [1]])
    ids, mask = tokenizer.pad([[1, 2], [1]], pad_id=tokenizer.special.eos_id)
    assert ids.tolist() == [[1, 2], [1, 0]] and mask.tolist() == [[1, 1], [1, 0]]
    padded = dataclasses.replace(tokenizer, special=SpecialTokens(pad_id=2))
    # 0 is an id, too.
    assert padded.pad([[1, 2], [1]], pad_id=0)[0].tolist() == [[1, 2], [1, 0]]
    assert padded.pad([[1, 2], [1]])[0].tolist() == [[1, 2], [1, 2]]


def test_an_endless_piece_is_refused_at_once():
    start = time.monotonic()
    with pytest.raises(TokenizerError, match="2 pieces have up to 200000 characters"):
        merges_by_score([Piece("a", 0.0), Piece("a" * 200_000, -1.0)])
    with pytest.raises(TokenizerError, match="up to 2000 characters"):
        merges_by_score([Piece(f"{number:02000}", 0.0) for number in range(300)])
    metadata = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": ["<unk>", "a", "a" * 200_000],
        "tokenizer.ggml.token_type": [2, 1, 1],
    }
    with pytest.raises(TokenizerError, match="tokenizer.ggml: its 3 pieces have up to 200000"):
        tokenizer_from_gguf(metadata)
    assert time.monotonic() - start < 2  # the cuts of the first alone took 6 s
    # As long as a line of dashes in Gemma's vocabulary.
    assert len(merges_by_score([Piece("-" * n, 0.0) for n in range(1, 129)])) == 127 * 128 / 2
