"""Token shards: what is written is read; damage is named; an interrupted call goes on."""

import hashlib
import json
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfbig.data import TokenShards, write_shards

CORPUS = [(f"{i}.txt", "abcdefghij"[: i % 10] + "ü" * (i % 3)) for i in range(40)]
EOS = 256


class Encoder:
    """Bytes as tokens; counts its calls, and is interrupted at one of them."""

    def __init__(self, interrupt_at=None):
        self.calls, self.interrupt_at = 0, interrupt_at

    def __call__(self, text):
        if self.calls == self.interrupt_at:
            raise KeyboardInterrupt
        self.calls += 1
        return list(text.encode())


def write(folder, corpus=CORPUS, encode=None, **options):
    options = {"vocabulary_size": 257, "tokenizer_hash": "bytes", "shard_tokens": 50} | options
    return write_shards(corpus, encode or Encoder(), folder, eos_id=EOS, **options)


def texts_of(shards):
    return [bytes(ids[:-1].tolist()).decode() for ids in shards.documents()]


def content_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@settings(max_examples=25, deadline=None)
@given(st.lists(st.text(max_size=20), min_size=1, max_size=12), st.integers(1, 60))
def test_what_is_written_is_read(tmp_path_factory, texts, shard_tokens):
    folder = tmp_path_factory.mktemp("shards")
    corpus = [(str(i), text) for i, text in enumerate(texts)]
    shards = write(folder, corpus, shard_tokens=shard_tokens)
    assert texts_of(shards) == texts
    assert all(ids[-1] == EOS and ids.dtype == np.int32 for ids in shards.documents())
    sizes = [len(text.encode()) for text in texts]
    assert shards.document_bytes.tolist() == sizes and shards.bytes == sum(sizes)
    assert shards.sizes.tolist() == [size + 1 for size in sizes]
    assert (len(shards), shards.tokens) == (len(texts), sum(sizes) + len(sizes))
    flat = np.concatenate(list(shards.documents()))
    places = np.random.default_rng(0).integers(0, shards.tokens, (3, 4))
    assert (shards.gather(places) == flat[places]).all()


def test_the_files_by_hand(tmp_path):
    """Two bytes a token, least significant first; a shard is closed by what reaches its size."""
    shards = write(tmp_path, [("a", "A"), ("b", "ü"), ("c", "")], shard_tokens=4)
    assert sorted(content_of(tmp_path)) == ["index.json"] + [
        f"shard-0000{n}.{kind}" for n in (0, 1) for kind in ("documents", "json", "tokens")
    ]
    first = (tmp_path / "shard-00000.tokens").read_bytes()
    assert first == bytes([65, 0, 0, 1, 0xC3, 0, 0xBC, 0, 0, 1])
    assert (tmp_path / "shard-00001.tokens").read_bytes() == bytes([0, 1])
    table = np.frombuffer((tmp_path / "shard-00000.documents").read_bytes(), "<i8")
    assert table.tolist() == [2, 1, 3, 2]
    index = json.loads((tmp_path / "index.json").read_text())
    assert index["shards"][0]["tokens_sha256"] == hashlib.sha256(first).hexdigest()
    assert (shards.eos_id, shards.vocabulary_size, shards.tokenizer_hash) == (256, 257, "bytes")


def test_a_large_vocabulary_takes_four_bytes(tmp_path):
    for size, width in ((2**16, 2), (2**16 + 1, 4)):
        shards = write_shards(
            [("a", "x")], lambda text, last=size - 1: [last], tmp_path / str(width),
            eos_id=0, vocabulary_size=size, tokenizer_hash="",
        )  # fmt: skip
        assert next(shards.documents()).tolist() == [size - 1, 0]
        assert (tmp_path / str(width) / "shard-00000.tokens").stat().st_size == 2 * width


def test_an_interrupted_call_goes_on_and_a_third_does_nothing(tmp_path):
    write(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt) as caught:
        write(tmp_path / "resumed", encode=Encoder(interrupt_at=25))
    assert "3 shards are finished" in caught.value.__notes__[0]
    with pytest.raises(FileNotFoundError, match="again if it was interrupted"):
        TokenShards(tmp_path / "resumed")
    finished = sum(
        json.loads(path.read_text())["documents"] for path in (tmp_path / "resumed").glob("*.json")
    )
    second, third = Encoder(), Encoder()
    assert texts_of(write(tmp_path / "resumed", encode=second)) == [text for _, text in CORPUS]
    assert 0 < second.calls == len(CORPUS) - finished < len(CORPUS)
    assert content_of(tmp_path / "resumed") == content_of(tmp_path / "whole")
    seen = []
    write(tmp_path / "resumed", encode=third, progress=lambda *counts: seen.append(counts))
    assert third.calls == 0 and content_of(tmp_path / "resumed") == content_of(tmp_path / "whole")
    assert seen[-1] == (len(CORPUS), TokenShards(tmp_path / "whole").tokens)


@pytest.mark.parametrize(
    "change",
    [
        lambda corpus: corpus[:5] + [("5.txt", "other")] + corpus[6:],
        lambda corpus: corpus + [("new", "more")],
        lambda corpus: corpus[:7],
        lambda corpus: corpus[::-1],
        lambda corpus: corpus[1:],
    ],
    ids=["a text", "one more", "fewer", "order", "without the first"],
)
def test_another_corpus_is_as_if_written_afresh(tmp_path, change):
    write(tmp_path / "a")
    encode = Encoder()
    assert texts_of(write(tmp_path / "a", change(CORPUS), encode)) == [
        text for _, text in change(CORPUS)
    ]
    write(tmp_path / "b", change(CORPUS))
    assert content_of(tmp_path / "a") == content_of(tmp_path / "b")


@pytest.mark.parametrize("option", [{"tokenizer_hash": "other"}, {"vocabulary_size": 70_000}])
def test_another_tokenizer_reuses_nothing(tmp_path, option):
    write(tmp_path)
    encode = Encoder()
    write(tmp_path, encode=encode, **option)
    assert encode.calls == len(CORPUS)


def test_an_old_index_does_not_outlive_its_shards(tmp_path):
    write(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, tokenizer_hash="other", encode=Encoder(interrupt_at=25))
    with pytest.raises(FileNotFoundError, match="index.json is missing"):
        TokenShards(tmp_path)


def cut(path):
    path.write_bytes(path.read_bytes()[:-2])


def flip(path):
    content = bytearray(path.read_bytes())
    content[3] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [cut, flip])
@pytest.mark.parametrize("kind", ["tokens", "documents"])
def test_damage_is_named_and_mended(tmp_path, damage, kind):
    write(tmp_path)
    damage(tmp_path / f"shard-00001.{kind}")
    with pytest.raises(ValueError, match=rf"shard-00001\.{kind}.*damaged.*write_shards again"):
        TokenShards(tmp_path)
    encode = Encoder()
    assert texts_of(write(tmp_path, encode=encode)) == [text for _, text in CORPUS]
    assert 0 < encode.calls < len(CORPUS) / 2  # one shard, not all
    TokenShards(tmp_path)


def test_a_missing_shard_and_the_sizes_without_sums(tmp_path):
    write(tmp_path)
    flip(tmp_path / "shard-00000.tokens")
    TokenShards(tmp_path, verify=False)
    flip(tmp_path / "shard-00001.documents")
    with pytest.raises(ValueError, match="do not add up"):
        TokenShards(tmp_path, verify=False)
    os.remove(tmp_path / "shard-00000.tokens")
    with pytest.raises(FileNotFoundError, match=r"shard-00000\.tokens.*write_shards again"):
        TokenShards(tmp_path)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
FIELDS = ["format", "dtype", "eos_id", "vocabulary_size", "tokenizer_hash", "shards"]
SHARD_FIELDS = ["name", "documents", "tokens", "tokens_sha256", "documents_sha256"]


@settings(max_examples=50, deadline=None)
@given(st.sampled_from(FIELDS + SHARD_FIELDS), json_values)
def test_a_hostile_index_is_refused(tmp_path_factory, field, value):
    folder = tmp_path_factory.mktemp("shards")
    write(folder, CORPUS[:3])
    index = json.loads((folder / "index.json").read_text())
    (index if field in FIELDS else index["shards"][0])[field] = value
    (folder / "index.json").write_text(json.dumps(index))
    harmless = field in ("eos_id", "vocabulary_size", "tokenizer_hash")
    if not (harmless and isinstance(value, int | str)):
        with pytest.raises((ValueError, FileNotFoundError)):
            TokenShards(folder)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"format": "other"}'])
def test_what_is_no_index(tmp_path, content):
    (tmp_path / "index.json").write_text(content)
    with pytest.raises(ValueError, match="index.json"):
        TokenShards(tmp_path)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([1, 300], r"'a'.*id 300.*vocabulary has 257"),
        ([-1], "id -1"),
        ([1, EOS], "end token 256 inside.*add_special_tokens=False.*encode_special_tokens"),
        ([[1, 2]], r"shape \(1, 2\)"),
    ],
)
def test_wrong_ids(tmp_path, ids, message):
    with pytest.raises(ValueError, match=message):
        write(tmp_path, [("a", "text")], lambda text: ids)


def test_wrong_arguments(tmp_path):
    with pytest.raises(ValueError, match="no document"):
        write(tmp_path, [])
    with pytest.raises(ValueError, match="vocabulary of 256"):
        write(tmp_path, vocabulary_size=256)
    with pytest.raises(ValueError, match="shard_tokens"):
        write(tmp_path, shard_tokens=0)


def test_a_failed_write_leaves_no_file_behind(tmp_path, monkeypatch):
    def full(_):
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write(tmp_path)
    assert content_of(tmp_path) == {}
