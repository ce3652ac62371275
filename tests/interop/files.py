"""Small checkpoint files made by hand, and what changes and judges them."""

import json
import struct

import pytest
from hypothesis import strategies as st

from tfbig.interop.checkpoint import CheckpointError, open_checkpoint


def safetensors_file(header, data=b"", length=None):
    """The bytes of a file, with any header and any length in front."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(dtype="U8", shape=(4,), offsets=(0, 4)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def refused(path, *parts):
    """Opening (and reading) says what is wrong, with these words."""
    with pytest.raises(CheckpointError) as error:
        checkpoint = open_checkpoint(path)
        for name in checkpoint.names():
            checkpoint.read(name)
    for part in parts:
        assert part in str(error.value), str(error.value)


def mutations(data):
    """`data` with some bytes changed, cut off or put in."""
    place = st.integers(0, len(data) - 1)
    change = st.tuples(
        st.sampled_from(["set", "cut", "insert", "remove"]), place, st.binary(max_size=9)
    )
    return st.lists(change, min_size=1, max_size=3).map(lambda changes: mutated(data, changes))


def mutated(data, changes):
    for kind, at, new in changes:
        behind = {
            "set": data[at + len(new) :],
            "cut": b"",
            "insert": data[at:],
            "remove": data[at + 9 :],
        }
        data = data[:at] + (new if kind != "remove" else b"") + behind[kind]
    return data


def reads_or_refuses(path):
    """Whether the checkpoint could be read whole; nothing but CheckpointError may come of it."""
    try:
        checkpoint = open_checkpoint(path)
        for name in checkpoint.names():
            array = checkpoint.read(name)
            assert array.shape == checkpoint.shape(name)
    except CheckpointError as error:
        assert len(str(error)) < 2000
        return False
    return True
