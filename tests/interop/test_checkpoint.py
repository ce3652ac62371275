"""safetensors checkpoints: what is written is read again, bit for bit, and whole or not at all."""

import json
import weakref

import ml_dtypes
import numpy as np
import pytest

from tests.interop.files import entry, safetensors_file
from tfbig.interop.checkpoint import CheckpointError, open_checkpoint, write_checkpoint
from tfbig.interop.safetensors_files import DTYPES

CONFIG = {"model_type": "tiny", "hidden_size": 3}


def bits(shape, dtype, seed=0):
    """Any bits at all: NaNs with payloads, infinities, the smallest numbers."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    data = np.random.default_rng(seed).integers(0, 256, size, "uint8")
    return (data & 1 if dtype == np.dtype("?") else data).view(dtype).reshape(shape)


@pytest.fixture
def sharded(tmp_path):
    """Three float32 tensors of 12 bytes, two to a shard."""
    tensors = {name: np.full(3, n, "float32") for n, name in enumerate("abc")}
    write_checkpoint(tmp_path / "model", tensors, CONFIG, max_shard_bytes=24)
    return tmp_path / "model"


# Round trips.


def test_every_type_and_shape_comes_back_bit_for_bit(tmp_path):
    tensors = {
        f"{name}.{axes}": bits(shape, dtype, seed=axes)
        for name, dtype in DTYPES.items()
        for axes, shape in enumerate([(), (5,), (2, 3), (0, 4), (2, 1, 3)])
    }
    write_checkpoint(tmp_path / "model", tensors, CONFIG)
    checkpoint = open_checkpoint(tmp_path / "model")
    assert set(checkpoint.names()) == set(tensors)
    for name, array in tensors.items():
        back = checkpoint.read(name)
        assert (back.dtype, back.shape) == (array.dtype, array.shape)
        assert back.tobytes() == array.tobytes()
        assert checkpoint.dtype(name) == name.split(".")[0]
        assert checkpoint.shape(name) == array.shape


def test_a_header_by_hand(tmp_path):
    # 1 in bfloat16 is 0x3F80, -2 is 0xC000.
    data = safetensors_file({"w": entry("BF16", (1, 2), (0, 4))}, b"\x80\x3f\x00\xc0")
    (tmp_path / "a.safetensors").write_bytes(data)
    checkpoint = open_checkpoint(tmp_path / "a.safetensors")
    assert checkpoint.read("w").dtype == ml_dtypes.bfloat16
    assert checkpoint.read("w").tolist() == [[1, -2]]
    assert checkpoint.config == {} and checkpoint.format == "safetensors"


def test_the_package_reads_what_was_written(tmp_path):
    from safetensors import safe_open
    from safetensors.numpy import load_file

    tensors = {"w": bits((3, 2), np.dtype("f4")), "n": np.array(7), "b": np.array([True, False])}
    write_checkpoint(tmp_path / "model", tensors, CONFIG)
    file = tmp_path / "model" / "model.safetensors"
    found = load_file(file)
    assert found.keys() == tensors.keys()
    assert all(found[name].tobytes() == array.tobytes() for name, array in tensors.items())
    with safe_open(file, framework="np") as opened:
        assert opened.metadata() == {"format": "pt"}
    assert json.loads((tmp_path / "model" / "config.json").read_text()) == CONFIG


def test_what_the_package_wrote_is_read(tmp_path):
    from safetensors.numpy import save_file

    array = bits((3, 2), np.dtype(ml_dtypes.bfloat16))
    save_file({"w": array}, tmp_path / "a.safetensors", {"any": "thing"})
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    checkpoint = open_checkpoint(str(tmp_path / "a.safetensors"))
    assert checkpoint.read("w").tobytes() == array.tobytes()
    assert checkpoint.config == CONFIG


@pytest.mark.parametrize("max_shard_bytes", [5 * 2**30, 500])
def test_transformers_loads_it_and_its_own_is_read(tmp_path, max_shard_bytes):
    transformers = pytest.importorskip("transformers", reason="the oracle is transformers")
    torch = pytest.importorskip("torch", reason="the oracle is transformers with torch")
    sizes = {"vocab_size": 11, "n_positions": 8, "n_embd": 4, "n_layer": 1, "n_head": 2}
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes))
    model.save_pretrained(tmp_path / "theirs", max_shard_size=max_shard_bytes)
    theirs = open_checkpoint(tmp_path / "theirs")
    assert (tmp_path / "theirs" / "model.safetensors.index.json").exists() == (
        max_shard_bytes == 500
    )
    pairs = ((name, theirs.read(name)) for name in theirs.names())
    write_checkpoint(tmp_path / "ours", pairs, theirs.config, max_shard_bytes=max_shard_bytes)
    loaded = transformers.GPT2LMHeadModel.from_pretrained(tmp_path / "ours").state_dict()
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded[name], tensor), name


# Writing.


def test_shards_are_named_and_indexed_as_hugging_face_does(sharded):
    one, two = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
    index = json.loads((sharded / "model.safetensors.index.json").read_text())
    assert index == {
        "metadata": {"total_size": 36},
        "weight_map": {"a": one, "b": one, "c": two},
    }
    expected = {"config.json", "model.safetensors.index.json", one, two}
    assert {file.name for file in sharded.iterdir()} == expected
    checkpoint = open_checkpoint(sharded)
    assert {name: checkpoint.read(name)[0] for name in checkpoint.names()} == {
        "a": 0,
        "b": 1,
        "c": 2,
    }
    assert checkpoint.has("a") and not checkpoint.has("d")
    with pytest.raises(CheckpointError, match="no tensor 'd': it has 3, such as 'a', 'b', 'c'"):
        checkpoint.shape("d")


def test_of_a_generator_one_shard_is_in_memory(tmp_path):
    given_, most = [], 0

    def tensors():
        nonlocal most
        for number in range(20):
            most = max(most, sum(reference() is not None for reference in given_))
            array = np.zeros(10, "uint8")
            given_.append(weakref.ref(array))
            yield f"t{number}", array
            del array

    write_checkpoint(tmp_path / "model", tensors(), CONFIG, max_shard_bytes=40)
    # The four of a shard; the fifth, at whose sight they are written, is the next one's first.
    assert most <= 5
    assert len(open_checkpoint(tmp_path / "model").names()) == 20


def test_strides_byte_order_and_metadata(tmp_path):
    matrix = np.arange(6, dtype="float32").reshape(2, 3)
    tensors = {"t": matrix.T, "big": matrix.astype(">f4"), "some": matrix[:, ::2]}
    write_checkpoint(tmp_path / "model", tensors, CONFIG, metadata={"format": "tf"})
    checkpoint = open_checkpoint(tmp_path / "model")
    assert checkpoint.read("t").tolist() == [[0, 3], [1, 4], [2, 5]]
    assert checkpoint.read("big").tolist() == matrix.tolist()
    assert checkpoint.read("some").tolist() == [[0, 2], [3, 5]]


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_nothing_is_left_of_what_was_broken_off(tmp_path, error):
    def tensors():
        yield "a", np.zeros(3)
        yield "b", np.zeros(3)
        raise error

    with pytest.raises(error):
        write_checkpoint(tmp_path / "model", tensors(), CONFIG, max_shard_bytes=1)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_use_stays_as_it_is(tmp_path):
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(CheckpointError, match="is there already"):
        write_checkpoint(tmp_path, {"a": np.zeros(3)}, CONFIG)
    with pytest.raises(CheckpointError, match="is there already"):
        write_checkpoint(tmp_path / "mine", {"a": np.zeros(3)}, CONFIG)
    assert [file.name for file in tmp_path.iterdir()] == ["mine"]
    (tmp_path / "empty").mkdir()
    write_checkpoint(tmp_path / "empty", {"a": np.zeros(3)}, CONFIG)
    assert open_checkpoint(tmp_path / "empty").names() == ("a",)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tensors": [("a", np.zeros(1)), ("a", np.ones(1))]}, "Two tensors are named 'a'"),
        ({"tensors": {"a": np.array(["text"])}}, "Tensor 'a' is of the type <U4"),
        ({"tensors": {"a": np.zeros(1, "complex128")}}, "complex128"),
        ({"tensors": {3: np.zeros(1)}}, "Unicode text, and one is 3"),
        ({"tensors": {"__metadata__": np.zeros(1)}}, "one is '__metadata__'"),
        ({"tensors": {"\ud800": np.zeros(1)}}, r"one is '.ud800'"),
        ({"tensors": iter(())}, "no tensor to write"),
        ({"config": {"a": np.zeros(1)}}, "cannot be written as JSON"),
        ({"metadata": {"format": 1}}, "its keys and values are strings"),
        ({"max_shard_bytes": 0}, "max_shard_bytes is 0"),
    ],
)
def test_what_cannot_be_written_is_named(tmp_path, arguments, message):
    given_ = {"tensors": {"a": np.zeros(1)}, "config": CONFIG, **arguments}
    with pytest.raises(CheckpointError, match=message):
        write_checkpoint(tmp_path / "model", **given_)
    assert list(tmp_path.iterdir()) == []


def test_weights_are_as_readable_as_the_config(tmp_path):
    write_checkpoint(tmp_path / "model", {"w": np.zeros(3, "float32")}, {})
    modes = {f.name: f.stat().st_mode for f in (tmp_path / "model").iterdir()}
    assert modes["model.safetensors"] == modes["config.json"]
