"""How GPT-2's scores are scaled, against `transformers`."""

import numpy as np
import pytest

from tests.interop.family_configs_llama import GPT2
from tfbig.interop.checkpoint import CheckpointError
from tfbig.interop.families import gpt2
from tfbig.interop.torch_modules import from_torch

torch = pytest.importorskip("torch", reason="the oracle is in PyTorch")
transformers = pytest.importorskip("transformers", reason="the oracle is in transformers")


@pytest.mark.parametrize("by_layer", [False, True])
@pytest.mark.parametrize("by_width", [False, True])
def test_scores_are_scaled_as_the_config_says(by_layer, by_width):
    config = transformers.GPT2Config(
        **{**GPT2, "n_layer": 3},
        initializer_range=0.5,  # wide, so that scores matter
        scale_attn_by_inverse_layer_idx=by_layer,
        scale_attn_weights=by_width,
    )
    torch.manual_seed(0)
    module = transformers.GPT2LMHeadModel._from_config(config, attn_implementation="eager").eval()
    ids = np.random.default_rng(0).integers(0, 99, (2, 9))
    with torch.no_grad():
        expected = module(torch.from_numpy(ids)).logits.numpy()
    # Float32 through three layers; a wrong scale gives 1.
    np.testing.assert_allclose(from_torch(module)(ids), expected, atol=1e-4)


def test_scales_by_hand():
    by_layer = {"scale_attn_by_inverse_layer_idx": True}
    assert gpt2.scales({}, 4, 3) == [None]
    assert gpt2.scales({"scale_attn_weights": False}, 4, 3) == [1.0]
    assert gpt2.scales(by_layer, 4, 2) == [0.5, 0.25]
    assert gpt2.scales({**by_layer, "scale_attn_weights": False}, 4, 2) == [1.0, 0.5]


def test_heads_that_do_not_share_the_width_are_refused():
    with pytest.raises(CheckpointError, match="32 dimensions .* by 3 heads"):
        gpt2.build({**GPT2, "model_type": "gpt2", "n_head": 3})
