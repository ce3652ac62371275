"""Tables of names: which tensor of a checkpoint is which variable of a network.

A row says a name in the checkpoint, the attribute path of a variable in the network, and how one
array becomes the other: by a permutation of axes, and by cutting where the checkpoint holds several
variables in one tensor (GPT-2's `c_attn`, Phi-3's `qkv_proj`). Both ways are linear and lose
nothing, so the same table carries weights out again, and gradients.
"""

import dataclasses
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from tfbig.interop.stored_tensor import CheckpointError, shown

LINEAR = (1, 0)  # PyTorch's (out, in) to Keras's (in, out)
CONV1D = (2, 1, 0)  # (out, in, width) to (width, in, out)
CONV2D = (2, 3, 1, 0)  # (out, in, height, width) to (height, width, in, out)


@dataclasses.dataclass(frozen=True)
class Name:
    """A row of a table; `{i}` in both names runs over the layers.

    Attributes:
        theirs: the name in the checkpoint.
        ours: the attribute path of the variable, such as `transformer.norm.scale`;
            several are concatenated on their last axis in the checkpoint's tensor.
        axes: the permutation that makes the checkpoint's axes ours; None for the same.
        ones: how many axes of length 1 the checkpoint's tensor begins with and ours does not.

    >>> Name("wte.weight", "front.tokens.embeddings").paths
    ('front.tokens.embeddings',)
    """

    theirs: str
    ours: str | tuple[str, ...]
    axes: tuple[int, ...] | None = None
    ones: int = 0

    @property
    def paths(self) -> tuple[str, ...]:
        """The attribute paths, one or several."""
        return (self.ours,) if isinstance(self.ours, str) else self.ours


def each_layer(names: Iterable[Name], count: int) -> list[Name]:
    """The rows with `{i}` written out for layers 0, 1, ..., `count` - 1.

    >>> [name.theirs for name in each_layer([Name("h.{i}.w", "blocks.{i}.w")], 2)]
    ['h.0.w', 'h.1.w']
    """
    return [
        dataclasses.replace(
            name,
            theirs=name.theirs.replace("{i}", str(i)),
            ours=tuple(path.replace("{i}", str(i)) for path in name.paths),
        )
        for i in range(count)
        for name in names
    ]


def linear(theirs: str, ours: str, bias: bool = False) -> list[Name]:
    """The rows of a dense layer: its kernel, and its bias where there is one.

    >>> [name.ours for name in linear("fc1", "block.up", bias=True)]
    ['block.up.kernel', 'block.up.bias']
    """
    rows = [Name(f"{theirs}.weight", f"{ours}.kernel", LINEAR)]
    return [*rows, Name(f"{theirs}.bias", f"{ours}.bias")] if bias else rows


def layer_norm(theirs: str, ours: str) -> list[Name]:
    """The rows of a LayerNorm.

    >>> [name.ours for name in layer_norm("ln_f", "transformer.norm")]
    ['transformer.norm.gamma', 'transformer.norm.beta']
    """
    return [Name(f"{theirs}.weight", f"{ours}.gamma"), Name(f"{theirs}.bias", f"{ours}.beta")]


def variable(model: Any, path: str) -> Any:
    """The variable at an attribute path, whose numbers are places in lists.

    >>> import keras
    >>> model = keras.Sequential([keras.layers.Dense(2)])
    >>> model.build((None, 3))
    >>> tuple(variable(model, "layers.0.kernel").shape)
    (3, 2)
    """
    found = model
    for step in path.split("."):
        found = found[int(step)] if step.isdigit() else getattr(found, step)
    return found


def stored_shape(name: Name, shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """The shape of the checkpoint's tensor, of the shapes of our variables.

    >>> stored_shape(Name("w", ("q", "k"), LINEAR), [(8, 4), (8, 2)])
    (6, 8)
    """
    last = sum(shape[-1] for shape in shapes) if shapes[0] else 0
    shape = (*shapes[0][:-1], last) if shapes[0] else ()
    if name.axes is not None:
        shape = tuple(shape[name.axes.index(axis)] for axis in range(len(shape)))
    return (1,) * name.ones + shape


def to_ours(name: Name, array: np.ndarray, shapes: Sequence[tuple[int, ...]]) -> list[np.ndarray]:
    """The checkpoint's tensor as the arrays of our variables (views where possible).

    Raises:
        CheckpointError: if it has another shape.

    >>> to_ours(Name("w", ("q", "k"), LINEAR), np.ones((6, 8)), [(8, 4), (8, 2)])[1].shape
    (8, 2)
    """
    expected = stored_shape(name, shapes)
    if tuple(array.shape) != expected:
        raise CheckpointError(
            f"Tensor {name.theirs!r} has shape {tuple(array.shape)}, and by config.json it has "
            f"{expected}: the config is of another model, or the file is damaged."
        )
    array = array.reshape(expected[name.ones :])
    if name.axes is not None:
        array = array.transpose(name.axes)
    if len(shapes) == 1:
        return [array]
    ends = np.cumsum([shape[-1] for shape in shapes])[:-1]
    return np.split(array, ends, axis=-1)


def to_theirs(name: Name, arrays: Sequence[np.ndarray]) -> np.ndarray:
    """The arrays of our variables as the checkpoint's tensor: the inverse of `to_ours`.

    >>> to_theirs(Name("w", ("q", "k"), LINEAR), [np.ones((8, 4)), np.ones((8, 2))]).shape
    (6, 8)
    """
    array = arrays[0] if len(arrays) == 1 else np.concatenate(arrays, axis=-1)
    if name.axes is not None:
        array = array.transpose([name.axes.index(axis) for axis in range(array.ndim)])
    return array.reshape((1,) * name.ones + array.shape)


def spellings(
    theirs: Iterable[str],
    names: Iterable[Name],
    prefix: str = "",
    aliases: Sequence[tuple[str, str]] = (),
) -> dict[str, str]:
    """How a checkpoint spells the names of a table.

    Args:
        theirs: the names of the checkpoint's tensors.
        names: the table.
        prefix: what the checkpoint of a bare network may lack (`wte.weight`) or have in excess
            (`bert.pooler.dense.weight`).
        aliases: pairs of a pattern and its replacement, by which other spellings become the table's
            (`LayerNorm.gamma`).

    Returns:
        The checkpoint's name for each name of the table. A tensor that is in no row stands in it
        under its own name, but for aliases and a prefix in excess.

    Raises:
        CheckpointError: if two tensors are the same one.

    >>> spellings(["bert.norm.gamma"], [Name("norm.weight", "norm.gamma")], "bert.",
    ...           [(r"gamma$", "weight")])
    {'norm.weight': 'bert.norm.gamma'}
    """
    rows = {name.theirs for name in names}
    bare = not any(row.startswith(prefix) for row in rows)
    found: dict[str, str] = {}
    for name in theirs:
        spelled = name
        for pattern, replacement in aliases:
            spelled = re.sub(pattern, replacement, spelled)
        if bare:
            spelled = spelled.removeprefix(prefix)
        elif spelled not in rows and prefix + spelled in rows:
            spelled = prefix + spelled
        if spelled in found:
            raise CheckpointError(
                f"The tensors {shown(found[spelled])} and {shown(name)} are two spellings of one: "
                f"the file was put together of two models. Download it again from its source."
            )
        found[spelled] = name
    return found


def unknown(theirs: Iterable[str], names: Iterable[Name], ignored: Sequence[str]) -> list[str]:
    """The checkpoint's tensors that no row has and no pattern allows to leave out.

    >>> unknown(["a.w", "a.position_ids", "b"], [Name("a.w", "w")], [r"position_ids$"])
    ['b']
    """
    known = {name.theirs for name in names}
    patterns = [re.compile(pattern) for pattern in ignored]
    return [
        name
        for name in theirs
        if name not in known and not any(pattern.search(name) for pattern in patterns)
    ]
