"""Tables of names: each row's two ways are inverse, and what has no place is told."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfbig.interop.checkpoint import CheckpointError
from tfbig.interop.names import (
    CONV1D,
    CONV2D,
    LINEAR,
    Name,
    each_layer,
    stored_shape,
    to_ours,
    to_theirs,
    unknown,
)


def test_a_fused_tensor_by_hand():
    """PyTorch stacks q, k, v in the rows of one matrix; ours are three, transposed."""
    q, k = np.arange(6.0).reshape(3, 2), np.arange(10.0, 13.0).reshape(3, 1)
    name = Name("qk.weight", ("q", "k"), LINEAR)
    stored = np.array([[0.0, 2.0, 4.0], [1.0, 3.0, 5.0], [10.0, 11.0, 12.0]])
    np.testing.assert_array_equal(to_theirs(name, [q, k]), stored)
    for ours, expected in zip(to_ours(name, stored, [(3, 2), (3, 1)]), (q, k), strict=True):
        np.testing.assert_array_equal(ours, expected)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    st.sampled_from([(None, 1), (None, 3), (LINEAR, 2), (CONV1D, 3), (CONV2D, 4)]),
    st.integers(0, 2),
    st.lists(st.integers(1, 4), min_size=1, max_size=3),
    st.data(),
)
def test_the_two_ways_are_inverse(kind, ones, widths, data):
    axes, rank = kind
    front = data.draw(st.tuples(*[st.integers(1, 4)] * (rank - 1)))
    shapes = [(*front, width) for width in widths]
    name = Name("theirs", tuple(f"v{n}" for n in range(len(widths))), axes, ones)
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=shape) for shape in shapes]
    stored = to_theirs(name, arrays)
    assert stored.shape == stored_shape(name, shapes)
    for back, array in zip(to_ours(name, stored, shapes), arrays, strict=True):
        np.testing.assert_array_equal(back, array)


def test_a_wrong_shape_names_the_tensor():
    with pytest.raises(CheckpointError, match=r"'h\.w' has shape \(2, 3\).*\(3, 2\)"):
        to_ours(Name("h.w", "w", LINEAR), np.zeros((2, 3)), [(2, 3)])


def test_layers_are_written_out_and_the_rest_is_told():
    rows = each_layer([Name("h.{i}.w", ("b.{i}.q", "b.{i}.k"))], 2)
    assert [(row.theirs, row.paths) for row in rows][1] == ("h.1.w", ("b.1.q", "b.1.k"))
    assert unknown(["h.0.w", "h.2.w", "mask"], rows, [r"^mask$"]) == ["h.2.w"]
