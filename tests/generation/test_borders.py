"""Rows that grow beyond a border of their frequencies: the cache is made anew, and no row is moved.

The oracle is the uncached network, called on each row alone, and `transformers`' Phi-3.
"""

import numpy as np
import pytest

from tests.generation import models
from tfbig.generation import beam_search, generate
from tfbig.generation.decoding import decoding_of

# The first crosses at once, the second later, the third never; the fourth is long from the start.
PROMPTS = [[5, 17, 3, 9, 41, 8, 2, 30, 11, 4, 7, 1], [7, 7, 50, 12, 6, 3, 2, 9], [33], [*range(20)]]
NEW = 8


@pytest.fixture(scope="module")
def long():
    return models.shared("long")


def test_greedy_equals_the_uncached_network(long):
    results = generate(long, PROMPTS, max_new_tokens=NEW)
    for prompt, result in zip(PROMPTS, results, strict=True):
        logits = models.across(long, prompt + result.ids, len(prompt))
        assert logits.argmax(-1).tolist() == result.ids


def test_only_a_crossing_is_computed_anew(long):
    generate(long, [[1, 2, 3]], max_new_tokens=9)
    decoding = decoding_of(long)
    counts, prefill = [], decoding.prefill
    decoding.prefill = lambda inputs, length: counts.append(length) or prefill(inputs, length)
    try:
        # The tokens in places 0 to 11: the last of them is written, and not read.
        generate(long, [[1, 2, 3]], max_new_tokens=models.BORDER - 2)
        assert len(counts) == 1
        generate(long, [[1, 2, 3]], max_new_tokens=models.BORDER)
        assert len(counts) == 3
    finally:
        decoding.prefill = prefill


def test_beams_equal_those_of_the_uncached_network(long):
    """The scores of all beams, whose rows were reordered before and after the border."""
    prompts = PROMPTS[1:3]
    for prompt, beams in zip(
        prompts, beam_search(long, prompts, num_beams=2, max_new_tokens=NEW), strict=True
    ):
        for beam in beams:
            logits = models.across(long, prompt + beam.ids, len(prompt)).astype("float64")
            steps = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
            total = sum(steps[range(NEW), beam.ids])
            # 1e-5: float32, other shapes of matrices.
            assert beam.score == pytest.approx(total / NEW, abs=1e-5)


def test_a_decoder_with_an_encoder():
    model = models.seq2seq(rotary=models.long_rotary(8))
    prompts, start = [[5, 17, 3], [7, 50]], [0, 4]
    results = generate(model, prompts, start_ids=start, max_new_tokens=models.BORDER + 6)
    for prompt, result in zip(prompts, results, strict=True):

        def logits_of(ids, prompt=prompt):
            inputs = {"encoder_token_ids": np.array([prompt]), "decoder_token_ids": ids}
            return model(inputs)

        logits = models.across(logits_of, start + result.ids, 2)
        assert logits.argmax(-1).tolist() == result.ids


def test_equals_phi3_of_transformers():
    module, model = models.from_transformers(
        "phi3",
        vocab_size=50,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=64,
        original_max_position_embeddings=16,
        rope_parameters={
            "rope_type": "longrope",
            "rope_theta": 10_000.0,
            "short_factor": [1.0] * 8,
            "long_factor": [4.0] * 8,
            "original_max_position_embeddings": 16,
            "factor": 4.0,
        },
        initializer_range=0.5,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=None,
    )
    import torch

    prompts = [[5, 9, 13, 2, 7, 40, 33, 21, 8, 6, 30, 11], [4, 44, 3], [*range(1, 19)]]

    def theirs(rows, mask):
        out = module.generate(
            torch.tensor(rows),
            attention_mask=torch.tensor(mask),
            max_new_tokens=9,
            do_sample=False,
            eos_token_id=None,
        )
        return out[:, len(rows[0]) :].tolist()

    alone = [theirs([p], [[1] * len(p)])[0] for p in prompts]
    assert [r.ids for r in generate(model, prompts, max_new_tokens=9)] == alone
    # Theirs turns all rows of a batch by the frequencies of its longest, padding included.
    pads = [18 - len(p) for p in prompts]
    batch = theirs(
        [[0] * n + p for n, p in zip(pads, prompts, strict=True)],
        [[0] * n + [1] * len(p) for n, p in zip(pads, prompts, strict=True)],
    )
    assert batch != alone and batch[2] == alone[2]
