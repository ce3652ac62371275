"""Compression baselines: how many bits a byte of text takes without a network.

A language model is a compressor: the mean of its -log2 p over the bytes of a text is what an
arithmetic coder would write (Shannon 1948; Deletang et al., "Language Modeling Is Compression",
2024). Bits per byte can be compared between tokenizers, which perplexity per token cannot. Not
counted, on either side: the size of the program, and the network's weights.
"""

import gzip
import lzma
import math
from collections.abc import Iterable


def bits_per_byte(total_nats: float, total_bytes: int) -> float:
    """A sum of cross-entropies, per byte of the text that was predicted, in bits.

    Args:
        total_nats: sum, not mean, of -ln p over all tokens of the text, end tokens too.
        total_bytes: length of the text in UTF-8.

    Raises:
        ValueError: if there are no bytes.

    >>> import math
    >>> bits_per_byte(total_nats=16 * math.log(2), total_bytes=8)
    2.0
    """
    if total_bytes <= 0:
        raise ValueError(f"Bits per byte need at least one byte of text, and got {total_bytes}.")
    return total_nats / (math.log(2) * total_bytes)


def gzip_bits_per_byte(texts: Iterable[str]) -> float:
    """`gzip -9` on each text by itself, as a model sees each document by itself.

    The 18 bytes of each file's header and checksum are counted, a file's name is not.

    Raises:
        ValueError: if there are no bytes.

    >>> gzip_bits_per_byte(["a" * 1000]) < 0.5
    True
    """
    compressed = total = 0
    for text in texts:
        content = text.encode()
        compressed += len(gzip.compress(content, 9, mtime=0))
        total += len(content)
    return _ratio(compressed, total)


def xz_bits_per_byte(texts: Iterable[str]) -> float:
    """`xz -9e` on all texts as one stream: what it has seen in one helps it in the next.

    Takes about 700 MB of memory, as xz says of its preset 9.

    Raises:
        ValueError: if there are no bytes.

    >>> xz_bits_per_byte(["a" * 500, "a" * 500]) < 0.8
    True
    """
    compressor = lzma.LZMACompressor(preset=9 | lzma.PRESET_EXTREME)
    compressed = total = 0
    for text in texts:
        content = text.encode()
        compressed += len(compressor.compress(content))
        total += len(content)
    return _ratio(compressed + len(compressor.flush()), total)


def _ratio(compressed: int, total: int) -> float:
    if not total:
        raise ValueError("Bits per byte need at least one byte of text, and there was none.")
    return 8 * compressed / total
