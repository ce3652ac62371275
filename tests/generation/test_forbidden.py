"""Forbidden tokens: by hand, in sampling and in beams, and against `transformers`."""

import numpy as np
import pytest
from keras import ops

from tests.generation import models
from tfbig.generation import (
    Chain,
    Forbidden,
    Temperature,
    TopK,
    beam_search,
    generate,
    generate_text,
    stream,
)
from tfbig.generation.beam import best_continuations
from tfbig.generation.forbidden import forbidden_steps

INF = float("inf")
PROMPTS = [[5, 17, 3, 9], [7, 50], [33]]


def test_by_hand():
    logits = ops.array([[1.0, 4.0, 3.0, 2.0]])
    found = ops.convert_to_numpy(Forbidden([1, 3, 1])(logits, None))
    assert found.tolist() == [[1.0, -INF, 3.0, -INF]]
    assert Forbidden(i for i in (3, 1)) == Forbidden((1, 3))
    # First in a chain: the two likeliest of what is left.
    chain = Chain((Forbidden([1]), TopK(2)))
    assert ops.convert_to_numpy(chain(logits, None)).tolist() == [[-INF, -INF, 3.0, 2.0]]
    assert forbidden_steps([1], [3], 4) == (Forbidden([1, 3]), Forbidden([1]))


def test_beams_keep_the_others_probabilities():
    logits = ops.log(ops.array([[0.5, 0.3, 0.2]]))
    scores, _, tokens = best_continuations(logits, ops.array([[0.0]]), 3, 1, Forbidden([0]))
    assert ops.convert_to_numpy(tokens)[0, :2].tolist() == [1, 2]
    # 1e-6: float32.
    found = ops.convert_to_numpy(scores)[0].tolist()
    assert found == pytest.approx([np.log(0.3), np.log(0.2), -INF], abs=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Forbidden([-1]), "Forbidden has the id -1"),
        (lambda: Forbidden(3), "Forbidden is a list of token ids, such as .2., and was 3"),
        (lambda: Forbidden([1.0]), "An id of Forbidden is a whole number, and was 1.0"),
        (lambda: Forbidden([4])(ops.ones((1, 4)), None), "has the id 4, .* vocabulary is 0 to 3"),
        (lambda: forbidden_steps([0, 1], [2], 3), "All 3 tokens are forbidden"),
    ],
)
def test_refuses(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_what_is_forbidden_is_not_drawn():
    model, sampler = models.shared(), Temperature(1.5)
    free = generate(model, PROMPTS, max_new_tokens=20, sampler=sampler, seed=0)
    always, first = free[0].ids[5], free[0].ids[0]
    assert always != first
    found = generate(
        model,
        PROMPTS,
        max_new_tokens=20,
        sampler=sampler,
        seed=0,
        forbidden=[always],
        forbidden_first=[first],
    )
    assert not any(always in r.ids for r in found)
    assert found[0].ids[0] != first
    # Greedily: the likeliest of what is left, by the uncached network.
    (greedy,) = generate(model, [[5, 17]], max_new_tokens=8)
    given = {"forbidden": greedy.ids[2:3], "forbidden_first": greedy.ids[:1]}
    (result,) = generate(model, [[5, 17]], max_new_tokens=8, **given)
    logits = models.uncached(model, [5, 17], result.ids)
    logits[:, given["forbidden"]] = logits[0, given["forbidden_first"]] = -INF
    assert logits.argmax(-1).tolist() == result.ids != greedy.ids


class Numbers:
    """A tokenizer that writes an id as a number."""

    eos_ids = frozenset()

    def encode(self, text):
        return [int(word) for word in text.split()]

    def stream(self):
        return self

    def push(self, number):
        return f"{number} "

    def flush(self):
        return ""


def test_text_too():
    model = models.shared()
    (greedy,) = generate(model, [[5, 17]], max_new_tokens=8)
    given = {"max_new_tokens": 8, "forbidden": greedy.ids[2:3], "forbidden_first": greedy.ids[:1]}
    (expected,) = generate(model, [[5, 17]], **given)
    (text,) = generate_text(model, Numbers(), ["5 17"], **given)
    pieces = stream(model, Numbers(), "5 17", **given)
    assert Numbers().encode(text.text) == expected.ids == Numbers().encode("".join(pieces))


@pytest.mark.parametrize("num_beams", [pytest.param(1, marks=pytest.mark.full), 3])
def test_equals_transformers(num_beams):
    """Bad words, suppressed tokens, and those that do not begin a text."""
    module, model = models.both("t5")
    import torch

    ids = [[5, 17, 3, 9], [7, 50, 7, 50], [33, 2, 8, 30]]

    def theirs(**more):
        out = module.generate(
            torch.tensor(ids),
            max_new_tokens=7,
            do_sample=False,
            num_beams=num_beams,
            num_return_sequences=num_beams,
            eos_token_id=None,
            pad_token_id=0,
            **more,
        )
        return out[:, 1:].tolist()

    def ours(**more):
        arguments = {"max_new_tokens": 7, "start_ids": [0], **more}
        if num_beams == 1:
            return [r.ids for r in generate(model, ids, **arguments)]
        found = beam_search(model, ids, num_beams=num_beams, **arguments)
        return [beam.ids for beams in found for beam in beams]

    free = theirs()
    first, word, other = free[0][0], free[0][2], free[-1][3]
    expected = theirs(
        bad_words_ids=[[word]], suppress_tokens=[other], begin_suppress_tokens=[first]
    )
    assert ours() == free != expected
    assert ours(forbidden=[word, other], forbidden_first=[first]) == expected


@pytest.mark.full  # the same as above, of the family for which it matters most
def test_marian_does_not_write_its_padding():
    """Trained without it, the network has no opinion of it: its row and its bias are zeros."""
    module, _ = models.from_transformers(
        "marian",
        vocab_size=30,
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        pad_token_id=29,
        eos_token_id=0,
        decoder_start_token_id=29,
        forced_eos_token_id=None,
        max_position_embeddings=64,
        init_std=0.3,
    )
    import torch

    from tfbig.interop.torch_modules import from_torch

    module.final_logits_bias[0, :29] = -8.0
    model, prompt = from_torch(module), [5, 6, 7, 0]
    expected = module.generate(
        torch.tensor([prompt]), max_new_tokens=6, bad_words_ids=[[29]], do_sample=False, num_beams=1
    )[0, 1:].tolist()
    given = {"max_new_tokens": 6, "start_ids": [29]}
    assert generate(model, [prompt], **given)[0].ids == [29] * 6
    assert generate(model, [prompt], forbidden=[29], **given)[0].ids == expected
