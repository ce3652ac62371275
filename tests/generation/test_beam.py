"""Beam search: by hand, against all texts there are, and against `transformers`."""

import itertools
import math

import keras
import numpy as np
import pytest

from tests.generation import models
from tfbig.generation import beam_search, generate
from tfbig.generation.beam import Beam, Beams

PROMPTS = [[5, 17, 3, 9], [7, 50], [33]]
EOS = 3


def test_beams_by_hand():
    beams = Beams(count=2, max_new_tokens=3, length_penalty=1.0, eos_ids=frozenset({9}))
    assert beams.advance([(-1.0, 0, 4), (-2.0, 0, 9), (-3.0, 0, 5), (-4.0, 0, 6)]) == [0, 0]
    assert beams.running == [[4], [5]] and beams.scores == [-1.0, -3.0]
    assert beams.finished == [Beam([], -2.0, "eos")] and not beams.done
    # Beam 0's end is third, beyond the two best: it does not count.
    assert beams.advance([(-1.5, 0, 7), (-3.2, 1, 8), (-3.4, 0, 9), (-5.0, 1, 5)]) == [0, 1]
    assert len(beams.finished) == 1
    beams.advance([(-1.8, 0, 9), (-2.1, 0, 5), (-4.0, 1, 6), (-4.1, 1, 9)])
    # By length: -1.8 / 3, -2.1 / 3; and -2 / 1 is out.
    assert beams.done
    assert [(b.ids, round(b.score, 3), b.reason) for b in beams.finished] == [
        ([4, 7], -0.6, "eos"),
        ([4, 7, 5], -0.7, "length"),
    ]


@pytest.mark.parametrize(
    ("early_stopping", "length_penalty", "done"),
    [
        (True, 1.0, True),
        (False, 1.0, True),  # -3 / 1 is no better than -2
        ("never", 1.0, False),  # -3 / 9 is
        ("never", 0.0, True),
    ],
)
def test_early_stopping_by_hand(early_stopping, length_penalty, done):
    beams = Beams(2, 9, length_penalty, early_stopping, frozenset({8, 9}))
    beams.advance([(-1.0, 0, 8), (-2.0, 0, 9), (-3.0, 0, 1), (-4.0, 0, 2)])
    assert beams.done is done


@pytest.mark.parametrize("length_penalty", [pytest.param(0.0, marks=pytest.mark.full), 1.0])
def test_equals_the_search_of_all_texts(length_penalty):
    model, vocabulary, length, prompt = models.shared(vocabulary=5), 5, 3, [1, 2]
    found = beam_search(
        model,
        [prompt],
        num_beams=vocabulary**length,
        max_new_tokens=length,
        length_penalty=length_penalty,
        early_stopping="never",
        eos_ids=[EOS],
    )[0]
    texts = np.array(list(itertools.product(range(vocabulary), repeat=length)))
    logits = model(np.concatenate([np.repeat([prompt], len(texts), 0), texts], 1))
    steps = keras.ops.convert_to_numpy(keras.ops.log_softmax(logits))[:, 1:-1].astype("float64")
    expected = {}
    for row, text in enumerate(texts.tolist()):
        end = text.index(EOS) + 1 if EOS in text else length
        total = sum(steps[row, i, text[i]] for i in range(end))
        expected[tuple(text[:end])] = total / end**length_penalty
    best = sorted(expected, key=expected.get, reverse=True)
    ours = [(*b.ids, EOS) if b.reason == "eos" else tuple(b.ids) for b in found]
    assert ours == best and len(best) == 1 + 4 + 16 + 64
    # 1e-5: float32 sums.
    np.testing.assert_allclose([b.score for b in found], [expected[t] for t in best], atol=1e-5)


def test_one_beam_is_greedy():
    model = models.shared()
    beams = beam_search(model, PROMPTS, num_beams=1, max_new_tokens=8)
    assert [b[0].ids for b in beams] == [r.ids for r in generate(model, PROMPTS, max_new_tokens=8)]


@pytest.mark.parametrize("name", ["llama", "t5"])
def test_equals_transformers(name):
    """The texts of all beams and their scores, in every way to stop and to weigh lengths."""
    module, model = models.both(name)
    import torch

    longest, left = max(map(len, PROMPTS)), name == "llama"
    pads = [[0] * (longest - len(p)) for p in PROMPTS]
    ids = [pad + p if left else p + pad for p, pad in zip(PROMPTS, pads, strict=True)]
    reasons = set()
    for early_stopping, length_penalty, eos_ids in [
        (False, 1.0, [11, 24]),
        ("never", 2.0, [11]),
        *([(True, 1.0, [11, 24]), (False, 0.0, [24])] if left else []),
    ]:
        theirs = module.generate(
            torch.tensor(ids),
            attention_mask=torch.tensor([[int(i != 0) for i in row] for row in ids]),
            max_new_tokens=7,
            do_sample=False,
            num_beams=3,
            num_return_sequences=3,
            length_penalty=length_penalty,
            early_stopping=early_stopping,
            eos_token_id=eos_ids,
            pad_token_id=0,
            return_dict_in_generate=True,
            output_scores=True,
        )
        ours = beam_search(
            model,
            PROMPTS,
            num_beams=3,
            max_new_tokens=7,
            length_penalty=length_penalty,
            early_stopping=early_stopping,
            eos_ids=eos_ids,
            start_ids=None if left else [0],
        )
        rows = theirs.sequences[:, (longest if left else 1) :].tolist()
        for beam, row, score in zip(
            itertools.chain(*ours), rows, theirs.sequences_scores.tolist(), strict=True
        ):
            ends = [i for i, token in enumerate(row) if token in eos_ids]
            expected = row[: ends[0]] if ends else row[:7]
            assert beam.ids == expected and beam.reason == ("eos" if ends else "length")
            # 1e-4: float32 sums of two libraries.
            assert beam.score == pytest.approx(score, abs=1e-4)
            reasons.add(beam.reason)
    assert reasons == {"eos", "length"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_beams": 0}, "num_beams is 1 or more, and was 0"),
        ({"num_beams": 2.0}, "num_beams is a whole number, and was 2.0"),
        ({"max_new_tokens": "2"}, "max_new_tokens is a whole number, and was '2'"),
        ({"length_penalty": math.nan}, "length_penalty is a number, and was nan"),
        ({"length_penalty": None}, "length_penalty is a number, and was None"),
        ({"eos_ids": 3}, "eos_ids is a list of token ids, such as .2., and was 3"),
        ({"eos_ids": [2.5]}, "An id of eos_ids is a whole number, and was 2.5"),
        ({"early_stopping": "always"}, "and not 'always'"),
        ({"eos_ids": [99]}, "eos_ids has the id 99"),
        ({"prompts": [[]]}, "prompt 0 is empty"),
    ],
)
def test_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        beam_search(models.shared(), **{"prompts": [[1]], "max_new_tokens": 2, **arguments})


def test_nan_is_reported():
    model = models.causal(vocabulary=5)
    model.front.tokens.embeddings.assign(np.full((5, 16), np.nan))
    with pytest.raises(FloatingPointError, match="NaN at new token 0"):
        beam_search(model, [[1]], max_new_tokens=2)
