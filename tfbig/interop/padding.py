"""Texts of several lengths as one array, and the mask that tells the padding."""

from collections.abc import Sequence

import numpy as np


def pad(
    batch: Sequence[Sequence[int]], pad_id: int, side: str = "right", length: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Makes one array of texts of several lengths.

    Args:
        batch: the ids of each text.
        pad_id: what to fill with.
        side: `"right"` for training; `"left"` for generating, where all texts must end together.
        length: of the result; None for that of the longest text.

    Returns:
        The ids and the mask (1 on a text's ids, 0 on padding), both int32 of `(batch, time)`.

    Raises:
        ValueError: if `side` is no side, or a text is longer than `length`.

    >>> ids, mask = pad([[5, 6], [7]], pad_id=0, side="left")
    >>> ids.tolist(), mask.tolist()
    ([[5, 6], [0, 7]], [[1, 1], [0, 1]])
    """
    if side not in ("right", "left"):
        raise ValueError(f"side is 'right' or 'left', and it is {side!r}.")
    longest = max((len(ids) for ids in batch), default=0)
    length = longest if length is None else length
    if longest > length:
        raise ValueError(f"A text of {longest} ids does not fit into length={length}: cut it.")
    token_ids = np.full((len(batch), length), pad_id, dtype=np.int32)
    padding_mask = np.zeros((len(batch), length), dtype=np.int32)
    for row, ids in enumerate(batch):
        place = slice(0, len(ids)) if side == "right" else slice(length - len(ids), length)
        token_ids[row, place] = ids
        padding_mask[row, place] = 1
    return token_ids, padding_mask
