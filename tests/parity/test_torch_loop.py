"""A PyTorch loop against `fit`: right ones agree, and what is wrong in one is seen."""

import keras
import numpy as np
import pytest

from tfbig import parity

torch = pytest.importorskip("torch", reason="PyTorch is the other side")
transformers = pytest.importorskip("transformers", reason="its models have the names")


@pytest.fixture
def both():
    from tfbig.interop.torch_modules import from_torch

    torch.manual_seed(0)
    sizes = {"vocab_size": 50, "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 16}
    none = {"attn_pdrop": 0.0, "resid_pdrop": 0.0, "embd_pdrop": 0.0}
    ends = {"bos_token_id": 0, "eos_token_id": 0}
    module = transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes, **none, **ends))
    model = from_torch(module)
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model, module


X = np.random.default_rng(0).integers(0, 50, (3, 8))


def backward(module, reduction):
    logits = module(torch.from_numpy(X)).logits
    labels = torch.from_numpy(np.roll(X, -1, axis=1)).reshape(-1)
    loss = torch.nn.functional.cross_entropy(
        logits.reshape(-1, logits.shape[-1]), labels, reduction=reduction
    )
    loss.backward()


def test_a_right_loop_agrees(both):
    model, module = both
    y = np.roll(X, -1, axis=1)
    report = parity.compare_torch(model, module, lambda: backward(module, "mean"), X, y)
    assert report.matches, str(report)
    assert len(report.compared) >= 14


def test_a_sum_is_seen_as_one(both):
    model, module = both
    y = np.roll(X, -1, axis=1)
    report = parity.compare_torch(model, module, lambda: backward(module, "sum"), X, y)
    assert not report.matches
    # By hand: the sum over 3 x 8 tokens is 24 times their mean.
    ratios = [row.ratio for row in report.rows if not row.is_zero]
    np.testing.assert_allclose(ratios, 24.0, rtol=1e-4)
