"""The mixture of experts: routing by hand, a loop over tokens, transformers' balance loss."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from tfbig.models import GatedFeedForward, MixtureOfExperts, balance_loss
from tfbig.models.mixture import mixed_by_all, mixed_by_chosen, top_experts

# Sums of up to 24 float32 products, in two orders.
TOLERANCE = 2e-6


def numbers(*shape, seed=0, scale=1.0):
    return (scale * np.random.default_rng(seed).normal(size=shape)).astype("float32")


def in_numpy(x, router, gate, up, down, top_k):
    """Token by token, expert by expert, in float64."""
    result = np.zeros(x.shape)
    for n, token in enumerate(x.astype("float64")):
        logits = token @ router
        chosen = np.argsort(-logits)[:top_k]
        shares = np.exp(logits[chosen]) / np.exp(logits[chosen]).sum()
        for share, e in zip(shares, chosen, strict=True):
            hidden = token @ gate[e]
            result[n] += share * ((hidden / (1 + np.exp(-hidden)) * (token @ up[e])) @ down[e])
    return result


def a_mixture(experts=8, top_k=2, dim=6, width=10, **arguments):
    mixture = MixtureOfExperts(experts, top_k, width, **arguments)
    mixture.build((None, None, dim))
    for seed, weight in enumerate(mixture.weights):
        weight.assign(numbers(*weight.shape, seed=seed, scale=0.5))
    return mixture


def arrays(mixture):
    layers = (mixture.router.kernel, mixture.gate, mixture.up, mixture.down)
    return [ops.convert_to_numpy(weight) for weight in layers]


def test_shares_by_hand():
    shares, chosen = top_experts(ops.array([[np.log(1.0), np.log(6.0), np.log(3.0)]]), 2)
    assert ops.convert_to_numpy(chosen).tolist() == [[1, 2]]
    # 6 / (6 + 3), whatever the third has.
    np.testing.assert_allclose(shares, [[2 / 3, 1 / 3]], rtol=1e-6)


@pytest.mark.parametrize("experts", [2, 8])  # all by all; sorted, or not if one has too many
def test_a_loop_over_tokens(experts):
    mixture = a_mixture(experts)
    x = numbers(4, 6, 6, seed=9)
    expected = in_numpy(x.reshape(24, 6), *arrays(mixture), top_k=2).reshape(x.shape)
    np.testing.assert_allclose(mixture(x), expected, atol=TOLERANCE, rtol=1e-5)


@pytest.mark.parametrize("crowded", [False, True])
def test_sorted_is_all_by_all(crowded):
    """Values and gradients, with room for all and without it; in graph and under XLA too."""
    x, tokens, experts = numbers(16, 6), 16, 8
    chosen = np.stack([np.arange(tokens) % experts, (np.arange(tokens) + 3) % experts], axis=1)
    if crowded:
        chosen[:, 0] = 7
    shares = numbers(tokens, 2, seed=1) ** 2
    matrices = tf.constant(numbers(experts, 6, 6, seed=2))

    def gradients(mixed, x):
        with tf.GradientTape() as tape:
            tape.watch([x, matrices])
            out = mixed(x, shares, chosen, lambda rows: ops.matmul(rows, matrices), experts)
            loss = tf.reduce_sum(out**2)
        return [out, *map(tf.convert_to_tensor, tape.gradient(loss, [x, matrices]))]

    expected = gradients(mixed_by_all, tf.constant(x))
    any_batch = [tf.TensorSpec((None, 6))]
    for run in (
        lambda x: gradients(mixed_by_chosen, x),
        tf.function(lambda x: gradients(mixed_by_chosen, x), input_signature=any_batch),
        tf.function(lambda x: gradients(mixed_by_chosen, x), jit_compile=True),
    ):
        for ours, theirs in zip(run(tf.constant(x)), expected, strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-4, rtol=1e-5)


def test_no_more_than_their_share_is_computed():
    """The sorted form gives each of 8 experts 1.5 x 32 / 8 = 6 rows of its own, not all 16."""
    seen = []

    def experts(rows):
        seen.append(tuple(rows.shape))
        return ops.broadcast_to(rows, (8, *rows.shape[1:]))

    chosen = np.stack([np.arange(16) % 8, (np.arange(16) + 3) % 8], axis=1)
    mixed_by_chosen(ops.array(numbers(16, 6)), numbers(16, 2), chosen, experts, 8)
    assert seen == [(8, 6, 6)]


def test_one_expert_is_a_gated_feed_forward():
    mixture = a_mixture(1, 1)
    plain = GatedFeedForward(10)
    plain.build((None, 6))
    for name in ("gate", "up", "down"):
        getattr(plain, name).kernel.assign(getattr(mixture, name)[0])
    x = numbers(3, 6)
    np.testing.assert_allclose(mixture(x), plain(x), atol=TOLERANCE)


def test_balance_by_hand():
    # Of two tokens, both to expert 0: 3 experts x (2/2 x 0.5 + 0 + 0).
    logits = np.log([[2.0, 1.0, 1.0], [2.0, 1.0, 1.0]])
    assert float(balance_loss(logits, 1)) == pytest.approx(1.5)
    # The second does not count: expert 1 has nobody.
    logits = np.log([[2.0, 1.0, 1.0], [1.0, 6.0, 1.0]])
    assert float(balance_loss(logits, 1, mask=[1, 0])) == pytest.approx(1.5)


@pytest.mark.parametrize("masked", [False, True])
def test_balance_is_that_of_transformers(masked):
    torch = pytest.importorskip("torch", reason="the oracle is in PyTorch")
    modeling = pytest.importorskip(
        "transformers.models.mixtral.modeling_mixtral", reason="the oracle is in transformers"
    )
    logits = numbers(12, 5)
    mask = np.array([1] * 9 + [0] * 3) if masked else None
    theirs = torch.tensor(logits, requires_grad=True)
    loss = modeling.load_balancing_loss_func(
        (theirs,), 5, 2, None if mask is None else torch.tensor(mask[None])
    )
    loss.backward()
    with tf.GradientTape() as tape:
        ours = tf.constant(logits)
        tape.watch(ours)
        value = balance_loss(ours, 2, mask)
    assert float(value) == pytest.approx(loss.item(), rel=1e-6)
    np.testing.assert_allclose(tape.gradient(value, ours), theirs.grad, atol=1e-7)


def test_the_loss_is_added_in_training_only():
    mixture = a_mixture(balance_weight=0.5)
    x = numbers(7, 6)
    mixture(x)
    assert mixture.losses == []
    mixture(x, training=True)
    expected = 0.5 * balance_loss(x @ arrays(mixture)[0], 2)
    np.testing.assert_allclose(mixture.losses[0], expected, rtol=1e-6)


def test_half_precision_and_config():
    mixture = a_mixture(dtype="mixed_bfloat16", activation="gelu")
    copy = MixtureOfExperts.from_config(mixture.get_config())
    copy.build((None, 6))
    copy.set_weights(mixture.get_weights())
    x = numbers(5, 6)
    out = copy(x)
    assert keras.backend.standardize_dtype(out.dtype) == "bfloat16"
    np.testing.assert_array_equal(out, mixture(x))


def test_experts_start_apart():
    mixture = MixtureOfExperts(3, 1, 4)
    mixture.build((None, 6))
    gate = ops.convert_to_numpy(mixture.gate)
    assert not np.allclose(gate[0], gate[1])


def test_more_experts_than_there_are():
    with pytest.raises(ValueError, match="top_k is 3.*num_experts is 2"):
        MixtureOfExperts(2, 3, 4)
