"""What parts and networks refuse, share, and compute in half precision."""

import keras
import numpy as np
import pytest
from keras import ops

from tfbig import models
from tfbig.models import (
    Attention,
    Block,
    Causal,
    CausalLM,
    FeedForward,
    Head,
    KeyValueCache,
    MeanToken,
    PreNorm,
    TokenFront,
    Transformer,
    language_model,
)
from tfbig.models.heads import unit_length

IDS = np.random.default_rng(0).integers(0, 11, (2, 6)).astype("int32")


def block(sees):
    norm = keras.layers.LayerNormalization()
    return Block(Attention(2, 4, sees=sees), FeedForward(16), PreNorm(norm))


def test_a_causal_network_refuses_an_attention_that_sees_the_answer():
    with pytest.raises(ValueError, match=r"block_0 sees the tokens.*sees=Causal\(\)"):
        CausalLM(TokenFront(11, 8), Transformer(block(None), 1), Head(11))


def test_a_part_with_weights_is_not_copied_without_them():
    trained = block(Causal())
    trained.build((None, None, 8))
    with pytest.raises(ValueError, match="without the weights that it has"):
        Transformer(trained, 1)


def test_another_head_on_a_trained_network_shares_its_weights():
    first = language_model(11, 1, 2, 8)
    first(IDS)
    second = CausalLM(first.front, first.transformer, Head(5))
    assert second(IDS).shape == (2, 6, 5)
    assert second.transformer is first.transformer
    np.testing.assert_array_equal(second.hidden(IDS), first.hidden(IDS))


def test_attention_turns_by_its_slots_where_no_positions_are_given():
    rotary = models.Rotary(models.rotary_frequencies(4))
    attention = Attention(2, 4, rotary=rotary)
    x = np.random.default_rng(0).normal(size=(1, 5, 8)).astype("float32")
    given = attention(x, positions=np.arange(5)[None])
    np.testing.assert_array_equal(attention(x), given)
    assert not np.allclose(attention(x), attention(x, positions=np.zeros((1, 5))), atol=1e-3)


def test_a_cache_is_not_written_past_its_end():
    cache = KeyValueCache(length=4, index=3)
    with pytest.raises(ValueError, match="4 slots, and 2 more.*from 3"):
        cache.extend("block_0", ops.ones((1, 2, 1, 3)), ops.ones((1, 2, 1, 3)))


def test_half_precision_does_not_overflow_in_sums():
    # By hand: 400 tokens of 200 sum to 80,000, and float16 ends at 65,504.
    hidden = ops.full((1, 400, 1), 200.0, "float16")
    mean = MeanToken(dtype="float16")(hidden, ops.ones((1, 400), "int32"))
    assert float(mean[0, 0]) == 200.0
    # 271^2 overflows, too; and the bound of zero's length is below float16's least number.
    long = unit_length(ops.convert_to_tensor([[271.0, 0.0]], "float16"))
    assert ops.convert_to_numpy(long).tolist() == [[1.0, 0.0]]
    assert ops.convert_to_numpy(unit_length(ops.zeros((1, 2), "float16"))).tolist() == [[0.0, 0.0]]


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        (IDS.astype("float32"), r"token_ids are integers .* float32 \(2, 6\)"),
        (IDS[0], r"token_ids are integers .* int32 \(6,\)"),
        ({"token_ids": IDS, "positions": IDS * 1.0}, "positions are integers"),
        ({"token_ids": IDS, "padding_mask": np.ones((2, 1), "int32")}, "1 slots and token_ids 6"),
    ],
)
def test_inputs_of_another_kind_are_refused(inputs, said):
    model = language_model(11, 1, 2, 8)
    with pytest.raises(ValueError, match=said):
        model(inputs)
