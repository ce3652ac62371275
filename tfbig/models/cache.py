"""The keys and values of the tokens so far, so that a step of generation computes one token only.

Its arrays have a fixed shape `(batch, length, key/value heads, head dim)`; a step writes into the
next slots. So one compiled step serves for a whole generation. The object lives for one call (one
trace) of the network: it is made of arrays, and its arrays are read after the call.

Keys stay as they were turned. Where a row reaches one of `rotary.cache_borders`, its older keys are
void: begin with an empty cache and all tokens so far, as `tfbig.generation` does.
"""

from collections.abc import Callable
from typing import Any

from keras import ops

Pair = tuple[Any, Any]


class KeyValueCache:
    """Keys and values by the path of an attention.

    Args:
        length: the number of slots.
        index: the first slot that this call writes: an integer, or a scalar of the backend.
        arrays: what an earlier call left in `arrays`; by default nothing.

    >>> cache = KeyValueCache(length=4)
    >>> keys, values = cache.extend("block_0", ops.ones((1, 2, 1, 3)), ops.ones((1, 2, 1, 3)))
    >>> keys.shape[1], float(ops.sum(keys))
    (4, 6.0)
    """

    def __init__(self, length: int, index: Any = 0, arrays: dict[str, Pair] | None = None) -> None:
        self.length = length
        self.index = index
        self.arrays = dict(arrays or {})

    def extend(self, name: str, keys: Any, values: Any) -> Pair:
        """All keys and values of an attention, these written into the slots from `index` on.

        Shapes:
            `(batch, new, heads, dim)` in, `(batch, length, heads, dim)` out.
        """
        if isinstance(self.index, int) and self.index + keys.shape[1] > self.length:
            # slice_update would move the slots back, over what stands there.
            raise ValueError(
                f"The cache has {self.length} slots, and {keys.shape[1]} more are written from "
                f"{self.index} on: make it longer."
            )
        old = self.arrays.get(name)
        if old is None:
            shape = (ops.shape(keys)[0], self.length, *keys.shape[2:])
            old = ops.zeros(shape, keys.dtype), ops.zeros(shape, values.dtype)
        start = (0, self.index, 0, 0)
        both = tuple(
            ops.slice_update(whole, start, part)
            for whole, part in zip(old, (keys, values), strict=True)
        )
        self.arrays[name] = both
        return both

    def once(self, name: str, make: Callable[[], Pair]) -> Pair:
        """The keys and values of a memory (cross-attention): made at the first call only."""
        if name not in self.arrays:
            self.arrays[name] = make()
        return self.arrays[name]

    def slots(self, count: int) -> Any:
        """The slot numbers of this call's `count` tokens, `(count,)` int32."""
        return ops.arange(count, dtype="int32") + ops.cast(self.index, "int32")
