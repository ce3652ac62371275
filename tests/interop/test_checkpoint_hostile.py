"""Damaged and hostile safetensors checkpoints: each is refused, and told what is wrong with it."""

import json
import os
import pickle
import struct

import numpy as np
import pytest
from hypothesis import given, settings

from tests.interop.files import (
    entry,
    mutations,
    reads_or_refuses,
    refused,
    safetensors_file,
)
from tfbig.interop.checkpoint import CheckpointError, open_checkpoint, write_checkpoint


@pytest.fixture
def sharded(tmp_path):
    """Three float32 tensors of 12 bytes, two to a shard."""
    tensors = {name: np.full(3, n, "float32") for n, name in enumerate("abc")}
    write_checkpoint(tmp_path / "model", tensors, {}, max_shard_bytes=24)
    return tmp_path / "model"


HEADERS = {
    "empty file": (b"", "cut short"),
    "header of 2**63 bytes": (safetensors_file({}, length=2**63), "has 9223372036854775808"),
    "header longer than the file": (safetensors_file({"a": entry()}, length=999), "cut short"),
    "no JSON": (safetensors_file(b"garbage"), "not JSON"),
    "no UTF-8": (safetensors_file(b'"\xff"'), "not JSON"),
    "a list": (safetensors_file([]), "an object was expected"),
    "nested too deep": (safetensors_file(b'{"a":' * 100_000), "not JSON"),
    "a number of 5000 digits": (safetensors_file(b'{"a":' + b"9" * 5000 + b"}"), "not JSON"),
    "a name twice": (
        safetensors_file(
            f'{{"a":{json.dumps(entry())},"a":{json.dumps(entry())}}}'.encode(), b"1234"
        ),
        "'a' is there twice",
    ),
    "no fields": (safetensors_file({"a": 7}), "described by 7"),
    "unknown type": (safetensors_file({"a": entry("F4")}, b"1234"), "of the type 'F4'"),
    "a list as type": (safetensors_file({"a": entry(["F32"])}, b"1234"), "of the type ['F32']"),
    "shape is no list": (safetensors_file({"a": entry() | {"shape": 4}}, b"1234"), "shape is 4"),
    "negative axis": (safetensors_file({"a": entry(shape=(-4,))}, b"1234"), "an axis of -4"),
    "an axis of true": (safetensors_file({"a": entry(shape=(True, 4))}, b"1234"), "of True"),
    "an axis of text": (safetensors_file({"a": entry(shape=("4",))}, b"1234"), "an axis of '4'"),
    "overflow": (safetensors_file({"a": entry(shape=(2**32, 2**32))}, b"1234"), "no machine"),
    "overflow beside 0": (
        safetensors_file({"a": entry(shape=(0, 2**62, 2**62), offsets=(0, 0))}),
        "no machine",
    ),
    "too many axes": (safetensors_file({"a": entry(shape=[1] * 99)}, b"1"), "99 axes"),
    "too many bytes": (safetensors_file({"a": entry(shape=(5,))}, b"1234"), "takes 5 bytes"),
    "backward": (safetensors_file({"a": entry(offsets=(4, 0))}, b"1234"), "data_offsets is [4, 0]"),
    "before": (safetensors_file({"a": entry(offsets=(-4, 0))}, b"1234"), "data_offsets is [-4, 0]"),
    "no numbers": (safetensors_file({"a": entry(offsets=(0.0, 4.0))}, b"1234"), "two integers"),
    "one offset": (safetensors_file({"a": entry(offsets=(0,))}, b"1234"), "two integers"),
    "cut short": (safetensors_file({"a": entry()}, b"123"), "cut short"),
    "overlap": (
        safetensors_file({"a": entry(), "b": entry(offsets=(3, 7))}, b"12345678"),
        "'a' and 'b' share bytes",
    ),
    "a gap": (
        safetensors_file({"a": entry(), "b": entry(offsets=(5, 9))}, b"123456789"),
        "no gaps",
    ),
    "something behind": (safetensors_file({"a": entry()}, b"12345"), "no gaps"),
}


@pytest.mark.parametrize("case", HEADERS)
def test_a_bad_header_is_named(tmp_path, case):
    data, message = HEADERS[case]
    (tmp_path / "a.safetensors").write_bytes(data)
    refused(tmp_path / "a.safetensors", "a.safetensors", message)


def test_a_huge_header_is_not_read(tmp_path):
    with open(tmp_path / "a.safetensors", "wb") as file:
        file.write(struct.pack("<Q", 2**36))
        file.truncate(2**36 + 8)  # of no bytes on the disk
    refused(tmp_path / "a.safetensors", "16777216 are the limit")


@pytest.mark.parametrize(
    "shard",
    ["../model/x", "/etc/passwd", "..", ".", "a\\b", "", "a\0", "\ud800", "x" * 300, 7, None, []],
)
def test_an_index_does_not_lead_out_of_its_folder(sharded, shard):
    index = {"weight_map": {"a": shard}}
    (sharded / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(sharded, "index.json" if shard not in ("..", ".") else "missing", "'a'")


@pytest.mark.parametrize("index", [{}, {"weight_map": []}, {"weight_map": {}}, []])
def test_an_index_without_a_map(sharded, index):
    (sharded / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(sharded, "index.json", "expected")


def test_a_missing_shard_and_its_tensors_are_named(sharded):
    (sharded / "model-00001-of-00002.safetensors").unlink()
    refused(sharded, "1 of 2 shards", "model-00001-of-00002.safetensors", "'a', 'b'", "Download")


def test_a_tensor_in_another_shard_is_named(sharded):
    os.replace(
        sharded / "model-00002-of-00002.safetensors", sharded / "model-00001-of-00002.safetensors"
    )
    (sharded / "model-00002-of-00002.safetensors").write_bytes(
        (sharded / "model-00001-of-00002.safetensors").read_bytes()
    )
    refused(sharded, "tensor 'a' should be in model-00001-of-00002.safetensors")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no such file"),
        ("{", "not JSON"),
        ("[1]", "an object was expected"),
        ("[" * 10**5, "not JSON"),
        (" " * (2**24 + 1), "16777216 are the limit"),
    ],
)
def test_a_bad_config_is_named(sharded, text, message):
    (sharded / "config.json").unlink()
    if text is not None:
        (sharded / "config.json").write_text(text)
    refused(sharded, "config.json", message)


def test_pickles_are_refused_unread(tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "it ran"),)

    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps(Trap()))
    refused(tmp_path, "pytorch_model.bin is a pickle", "run code", "save_pretrained")
    refused(tmp_path / "pytorch_model.bin", "is a pickle")
    assert not (tmp_path / "it ran").exists()


def test_what_is_no_checkpoint_is_told_what_one_is(tmp_path):
    refused(tmp_path, "it has nothing")
    (tmp_path / "notes.txt").write_text("notes")
    refused(tmp_path, "it has notes.txt")
    refused(tmp_path / "notes.txt", "ending in .safetensors or .gguf")
    refused(tmp_path / "nowhere", "Nothing is downloaded")
    (tmp_path / "adapter.safetensors").write_bytes(b"")
    refused(tmp_path, "but adapter.safetensors")


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.safetensors")
    refused(tmp_path / "a.safetensors", "not a regular one")


def test_a_file_cut_after_it_was_opened_is_an_error_and_no_crash(sharded):
    checkpoint = open_checkpoint(sharded)
    with open(sharded / "model-00002-of-00002.safetensors", "rb+") as file:
        file.truncate(20)
    with pytest.raises(CheckpointError, match="'c' has 12 bytes, and 0 could be read"):
        checkpoint.read("c")


TINY = safetensors_file(
    {
        "__metadata__": {"format": "pt"},
        "ab": entry("F32", (1, 2), (0, 8)),
        "c": entry("BOOL", (), (8, 9)),
    },
    bytes(9),
)
INDEX = (
    b'{"metadata": {"total_size": 9}, "weight_map": {"ab": "a.safetensors", "c": "a.safetensors"}}'
)


@pytest.fixture(scope="module")
def fuzz_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "config.json").write_text("{}")
    (folder / "a.safetensors").write_bytes(TINY)
    return folder


def test_the_unchanged_files_are_read(fuzz_folder):
    (fuzz_folder / "model.safetensors.index.json").write_bytes(INDEX)
    assert reads_or_refuses(fuzz_folder)


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(data=mutations(TINY))
def test_a_changed_file_is_read_or_refused(fuzz_folder, data):
    (fuzz_folder / "fuzzed.safetensors").write_bytes(data)
    reads_or_refuses(fuzz_folder / "fuzzed.safetensors")


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(data=mutations(INDEX))
def test_a_changed_index_is_read_or_refused(fuzz_folder, data):
    (fuzz_folder / "model.safetensors.index.json").write_bytes(data)
    reads_or_refuses(fuzz_folder)
