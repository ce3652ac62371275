"""Bits per byte by hand, and the compressors against the programs of that name."""

import math
import shutil
import subprocess

import numpy as np
import pytest

from tfbig.data import bits_per_byte, gzip_bits_per_byte, xz_bits_per_byte

TEXTS = [f"def f{i}(x):\n    return x + {i}\n" * 20 for i in range(5)] + ["übel", ""]
BYTES = sum(len(text.encode()) for text in TEXTS)


def test_bits_per_byte_by_hand():
    # A coin for each of 8 tokens over 4 bytes: 2 bits a byte.
    assert bits_per_byte(8 * math.log(2), 4) == pytest.approx(2, rel=1e-15)
    assert bits_per_byte(0.0, 1) == 0
    # A uniform guess among 256 bytes takes 8 bits.
    assert bits_per_byte(100 * math.log(256), 100) == pytest.approx(8, rel=1e-15)


def test_gzip_by_hand():
    # Header 10 bytes, checksum and length 8; the block: 3 bits, 8 a letter, 7 for the end.
    assert gzip_bits_per_byte(["a"]) == 8 * (18 + 3)
    assert gzip_bits_per_byte(["abc"]) == 8 * (18 + 5) / 3
    # Each text by itself: two files, two headers, where one stream would find the repetition.
    assert gzip_bits_per_byte(["abc", "abc"]) == gzip_bits_per_byte(["abc"])


def test_what_cannot_be_compressed():
    """Letters drawn from 64 have 6 bits each: nothing comes below, and both come near."""
    alphabet = np.array(list("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"))
    text = "".join(np.random.default_rng(0).choice(alphabet, 20_000))
    assert 6 < gzip_bits_per_byte([text]) < 6.2
    assert 6 < xz_bits_per_byte([text]) < 6.3


@pytest.mark.skipif(not shutil.which("gzip"), reason="the program gzip is the oracle")
def test_gzip_is_the_program():
    sizes = [
        len(subprocess.run(["gzip", "-9c"], input=t.encode(), capture_output=True).stdout)
        for t in TEXTS
    ]
    # Its zlib and Python's differ by version: a few bytes of some 60 a file.
    assert gzip_bits_per_byte(TEXTS) == pytest.approx(8 * sum(sizes) / BYTES, rel=0.02)


@pytest.mark.skipif(not shutil.which("xz"), reason="the program xz is the oracle")
def test_xz_is_the_program_on_all_texts_together():
    run = subprocess.run(["xz", "-9ec"], input="".join(TEXTS).encode(), capture_output=True)
    assert xz_bits_per_byte(TEXTS) == pytest.approx(8 * len(run.stdout) / BYTES, rel=0.02)


@pytest.mark.parametrize("measure", [gzip_bits_per_byte, xz_bits_per_byte])
@pytest.mark.parametrize("texts", [[], [""]])
def test_no_bytes(measure, texts):
    with pytest.raises(ValueError, match="at least one byte"):
        measure(texts)
    with pytest.raises(ValueError, match="at least one byte"):
        bits_per_byte(1.0, 0)
