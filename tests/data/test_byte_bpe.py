"""Byte-level BPE: merges by hand, a round trip of any text, the same tokenizer twice."""

import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfbig.data import train_byte_bpe

pytest.importorskip("tokenizers", reason="byte-level BPE is trained by the package tokenizers")

TEXTS = ["the cat sat on the mat, and the rat sat on the cat"] * 3


@pytest.fixture(scope="module")
def tokenizer():
    return train_byte_bpe(TEXTS, 280)


def test_merges_by_hand():
    """(a, b) is there 6 times; then (space, ab) 5 times, and (ab, c) or (space ab, c) less."""
    texts = ["abc abc abc abc ab ab"]
    one, two = (train_byte_bpe(texts, 257 + merges, ("<e>",)) for merges in (1, 2))
    assert one.encode("abc abc").tokens == ["ab", "c", "Ġ", "ab", "c"]
    assert two.encode("abc abc").tokens == ["ab", "c", "Ġab", "c"]
    assert (one.get_vocab_size(), two.get_vocab_size()) == (258, 259)


@settings(max_examples=100, deadline=None)
@given(st.text() | st.text("the cat<|endoftext|>\n\t "))
def test_every_text_comes_back(tokenizer, text):
    ids = tokenizer.encode(text).ids
    assert tokenizer.decode(ids, skip_special_tokens=False) == text
    assert tokenizer.token_to_id("<|endoftext|>") == 0 and 0 not in ids


def test_it_compresses_and_is_the_same_twice(tokenizer):
    assert len(tokenizer.encode(TEXTS[0]).ids) < len(TEXTS[0]) / 2
    assert train_byte_bpe(iter(TEXTS), 280).to_str() == tokenizer.to_str()


def test_a_vocabulary_without_room_and_a_missing_package(monkeypatch):
    with pytest.raises(ValueError, match="at least 257, and was 256"):
        train_byte_bpe(TEXTS, 256)
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ImportError, match=r'pip install "tfbig\[interop\]"'):
        train_byte_bpe(TEXTS, 300)
