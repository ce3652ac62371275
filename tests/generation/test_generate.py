"""Generation equals the uncached network, whatever the batch; it traces once and lets go."""

import gc
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.generation import models
from tests.generation.models import uncached
from tfbig.generation import (
    Greedy,
    RepetitionPenalty,
    Temperature,
    generate,
    generate_text,
    stream,
    text,
)
from tfbig.generation.decoding import decoding_of
from tfbig.generation.prompts import batch_of
from tfbig.generation.text import StopStrings
from tfbig.generation.tokens import next_ids
from tfbig.interop.token_stream import TokenStream

PROMPTS = [[5, 17, 3, 9, 41, 8, 2, 30, 11], [7, 7, 50], [33]]


@pytest.fixture(scope="module")
def shared():
    """One network for the tests that leave it as it is: traced once for all of them."""
    return models.shared()


@pytest.fixture(scope="module", params=["rotary", "window", "learned", "relative"])
def of_each_kind(request):
    """One network of each kind, for the tests that leave it as it is."""
    return models.shared(request.param)


# The test below tries all kinds, by their logits.
@pytest.mark.parametrize(
    "kind",
    [
        "rotary",
        *(pytest.param(k, marks=pytest.mark.full) for k in ("window", "learned", "relative")),
    ],
)
def test_greedy_equals_the_uncached_network(kind):
    """Also for unequal prompts: here each stands alone."""
    model = models.shared(kind)
    results = generate(model, PROMPTS, max_new_tokens=12)
    for prompt, result in zip(PROMPTS, results, strict=True):
        assert result.reason == "length" and len(result.ids) == 12
        assert uncached(model, prompt, result.ids).argmax(-1).tolist() == result.ids
    assert len({i for result in results for i in result.ids}) > 5


def test_logits_of_a_batch_equal_those_of_each_prompt(of_each_kind):
    model = of_each_kind
    batch, decoding = batch_of(model, PROMPTS, 4), decoding_of(model)
    new = np.random.default_rng(0).integers(0, models.VOCABULARY, (4, 3)).astype("int32")
    logits, state = decoding.prefill(tf.nest.map_structure(tf.constant, batch.inputs), batch.length)
    found = [logits]
    for number in range(3):
        slot = tf.constant(batch.first_slot + number)
        logits, state = decoding.step(tf.constant(new[number]), slot, state, batch.length)
        found.append(logits)
    for row, prompt in enumerate(PROMPTS):
        expected = uncached(model, prompt, new[:, row].tolist())
        # 1e-5: float32, other shapes of matrices.
        np.testing.assert_allclose([one[row] for one in found], expected, atol=1e-5)


def test_traces_once_and_sees_new_weights():
    model = models.causal()
    generate(model, PROMPTS, max_new_tokens=12)
    generate(model, [[1] * 30, [2], [3]], max_new_tokens=25, sampler=Temperature(0.5), seed=1)
    decoding = decoding_of(model)
    assert decoding.traces == {"prefill": 1, "step": 1}
    before = generate(model, PROMPTS, max_new_tokens=6)
    models.shuffle(model.transformer.blocks[0].attention.value.kernel)
    after = generate(model, PROMPTS, max_new_tokens=6)
    assert [r.ids for r in after] != [r.ids for r in before]
    for prompt, result in zip(PROMPTS, after, strict=True):
        assert uncached(model, prompt, result.ids).argmax(-1).tolist() == result.ids
    assert decoding_of(model) is decoding and decoding.traces == {"prefill": 1, "step": 1}


def test_other_variables_are_traced_anew():
    model = models.causal()
    generate(model, [[1, 2]], max_new_tokens=2)
    dense = model.transformer.blocks[0].attention.value
    dense.enable_lora(2)
    models.shuffle(dense.lora_kernel_b)
    (result,) = generate(model, [[1, 2]], max_new_tokens=8)
    assert uncached(model, [1, 2], result.ids).argmax(-1).tolist() == result.ids


def test_the_model_is_let_go():
    model = models.causal()
    generate(model, [[1, 2]], max_new_tokens=2)
    generate_text(model, Bytes(), ["\x01"], max_new_tokens=2)
    alive = weakref.ref(model)
    del model
    keras.backend.clear_session()
    gc.collect()
    assert alive() is None


def test_seeds(shared):
    model, sampler = shared, Temperature(1.5)

    def draw(prompts, seed):
        results = generate(model, prompts, max_new_tokens=10, sampler=sampler, seed=seed)
        return [result.ids for result in results]

    first = draw([[1, 2]] * 3, 3)
    assert draw([[1, 2]] * 3, 3) == first
    assert draw([[1, 2]], 3) == first[:1]  # no matter who its neighbours are
    assert first[0] != first[1]  # each row its own
    assert draw([[1, 2]], 4) != first[:1]
    keras.utils.set_random_seed(5)
    free = [draw([[1, 2]], None), draw([[1, 2]], None)]
    assert free[0] != free[1]
    keras.utils.set_random_seed(5)
    assert draw([[1, 2]], None) == free[0]


def test_sampling_follows_the_networks_probabilities():
    """The shares of 500 first tokens, against the softmax."""
    model, rows = models.causal(vocabulary=8), 500
    ids = np.array(next(next_ids(model, [[1, 2]] * rows, 1, Temperature(1.0), seed=0)))
    logits = keras.ops.convert_to_numpy(model(np.array([[1, 2]])))[0, -1].astype("float64")
    expected = np.exp(logits) / np.exp(logits).sum()
    # Four standard deviations of a share: 4 sqrt(p (1 - p) / 500) <= 0.09.
    np.testing.assert_allclose(np.bincount(ids, minlength=8) / rows, expected, atol=0.09)


def test_the_penalty_knows_the_prompt_and_the_output(shared):
    model = shared
    (result,) = generate(model, [[4, 9]], max_new_tokens=20, sampler=RepetitionPenalty(1e6))
    penalized = generate(
        model,
        [[4, 9]],
        max_new_tokens=20,
        sampler=lambda logits, history: Greedy()(RepetitionPenalty(1e6)(logits, history), history),
    )[0].ids
    text, logits = [4, 9], uncached(model, [4, 9], penalized)
    for new, row in zip(penalized, logits, strict=True):
        row = row.copy()
        there = sorted(set(text))
        row[there] = np.where(row[there] > 0, row[there] / 1e6, row[there] * 1e6)
        assert new == row.argmax()
        text.append(new)
    assert len(result.ids) == 20


def test_ends(shared):
    model = shared
    (free,) = generate(model, [[1, 2]], max_new_tokens=12)
    end = free.ids[4]
    first = free.ids.index(end)
    (eos,) = generate(model, [[1, 2]], max_new_tokens=12, eos_ids=[end, 59])
    assert (eos.ids, eos.reason) == (free.ids[:first], "eos")
    pair = free.ids[3:5]
    at = next(i for i in range(12) if free.ids[i : i + 2] == pair)
    (stop,) = generate(model, [[1, 2]], max_new_tokens=12, stop=[pair])
    assert (stop.ids, stop.reason) == (free.ids[:at], "stop")
    # One row ends, another goes on.
    rows = generate(model, [[1, 2], PROMPTS[0], [1, 2]], max_new_tokens=12, eos_ids=[end])
    (other,) = generate(model, [PROMPTS[0]], max_new_tokens=12, eos_ids=[end])
    assert rows == [eos, other, eos]


def test_seq2seq_equals_the_uncached_network():
    # Two ids at least: the uncached network warns of a softmax over one key.
    model, prompts = models.translator(), [*PROMPTS[:2], [33, 4]]
    results = generate(model, prompts, max_new_tokens=10, start_ids=[0, 4])
    for prompt, result in zip(prompts, results, strict=True):
        inputs = {
            "encoder_token_ids": np.array([prompt]),
            "decoder_token_ids": np.array([[0, 4, *result.ids]]),
        }
        logits = keras.ops.convert_to_numpy(model(inputs))[0, 1:-1]
        assert logits.argmax(-1).tolist() == result.ids


def test_seq2seq_of_features():
    model = models.sound()
    frames = np.random.default_rng(0).normal(size=(2, 12, 3)).astype("float32")
    results = generate(model, frames, max_new_tokens=6, start_ids=[1])
    ids = np.array([[1, *result.ids] for result in results])
    logits = model({"encoder_features": frames, "decoder_token_ids": ids})
    assert keras.ops.convert_to_numpy(logits)[:, :-1].argmax(-1).tolist() == ids[:, 1:].tolist()


@pytest.mark.parametrize("name", ["llama", "t5"])
def test_equals_transformers(name):
    module, model = models.both(name)
    import torch

    longest = max(map(len, PROMPTS))
    left = name == "llama"
    pads = [[0] * (longest - len(p)) for p in PROMPTS]
    ids = [pad + p if left else p + pad for p, pad in zip(PROMPTS, pads, strict=True)]
    mask = [[int(i != 0) for i in row] for row in ids]
    theirs = module.generate(
        torch.tensor(ids),
        attention_mask=torch.tensor(mask),
        max_new_tokens=12,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
    )
    start = None if left else [0]
    ours = generate(model, PROMPTS, max_new_tokens=12, start_ids=start)
    assert [r.ids for r in ours] == theirs[:, (longest if left else 1) :].tolist()


@pytest.mark.full  # XLA takes 10 s to compile
def test_xla_gives_the_same(shared):
    model = shared
    assert generate(model, PROMPTS, max_new_tokens=4, jit_compile=True) == generate(
        model, PROMPTS, max_new_tokens=4
    )


def test_prompts_are_rounded_up_but_not_beyond_the_positions():
    """40 positions, fewer than the smallest bucket; and the last one is used."""
    model, prompt = models.shared("learned"), [5, 17, 3]
    assert batch_of(model, [prompt], 4).inputs["token_ids"].shape == (1, 40)
    (result,) = generate(model, [prompt], max_new_tokens=37)
    assert uncached(model, prompt, result.ids).argmax(-1).tolist() == result.ids


def test_nan_is_reported():
    model = models.causal()
    model.front.tokens.embeddings.assign(np.full((models.VOCABULARY, 16), np.nan))
    with pytest.raises(FloatingPointError, match="row 0 are NaN.* new token 0"):
        generate(model, [[1, 2]], max_new_tokens=2)


# Text.


class Bytes:
    """A tokenizer whose ids are bytes; enough for the texts of a vocabulary of 60."""

    eos_ids = frozenset({0})

    def encode(self, text):
        return list(text.encode())

    def decode(self, ids):
        return bytes(ids).decode(errors="replace")

    def stream(self):
        return TokenStream(self.decode)


@pytest.fixture
def scripted(monkeypatch):
    """Lets a function of `text` read the given bytes instead of a model's."""

    def script(*rows):
        columns = [list(ids) for ids in zip(*rows, strict=True)]
        monkeypatch.setattr(text, "next_ids", lambda *arguments: iter(columns))
        monkeypatch.setattr(text, "vocabulary_of", lambda model: 256)

    return script


def test_text_equals_the_ids(shared):
    model, tokenizer = shared, Bytes()
    texts = generate_text(model, tokenizer, ["\x05\x11", [7], "\x02"], max_new_tokens=8, eos_ids=())
    ids = generate(model, [[5, 17], [7], [2]], max_new_tokens=8)
    assert [t.ids for t in texts] == [r.ids for r in ids]
    assert [t.text for t in texts] == [tokenizer.decode(r.ids) for r in ids]
    pieces = list(stream(model, tokenizer, "\x05\x11", max_new_tokens=8, eos_ids=()))
    assert "".join(pieces) == texts[0].text and all(pieces)


def test_a_stop_string_across_tokens(scripted):
    scripted(b"one\nUser: x", b"two\nUs\0----", "caf\u00e9 au la".encode())
    one, two, three = generate_text(None, Bytes(), ["", "", ""], stop=["\nUser:"])
    assert (one.text, one.reason, bytes(one.ids)) == ("one", "stop", b"one\nUser:")
    assert (two.text, two.reason) == ("two\nUs", "eos")  # held back, and given at the end
    assert (three.text, three.reason) == ("caf\u00e9 au la", "length")


def test_a_stream_gives_only_what_is_certain(scripted):
    scripted("a\u00e9\nUsual\nUser:".encode())
    pieces = stream(None, Bytes(), "", stop=["\nUser:"])
    given = []
    while True:
        try:
            given.append(next(pieces))
        except StopIteration as end:
            assert end.value == "stop"
            break
    assert given == ["a", "\u00e9", "\nUsu", "a", "l"]


def test_ctrl_c_gives_what_was_held_back(monkeypatch, scripted):
    scripted(b"")

    def tokens(*arguments):
        yield from ([i] for i in b"ab\nUs")
        raise KeyboardInterrupt

    monkeypatch.setattr(text, "next_ids", tokens)
    pieces, given = stream(None, Bytes(), "", stop=["\nUser:"]), []
    with pytest.raises(KeyboardInterrupt):
        for piece in pieces:
            given.append(piece)
    assert given == ["a", "b", "\nUs"]
    assert list(pieces) == []


@settings(max_examples=50, deadline=None)
@given(
    st.text("ab", max_size=12),
    st.lists(st.text("ab", min_size=1, max_size=3), max_size=3),
    st.lists(st.integers(1, 4), min_size=12, max_size=12),
)
def test_how_the_text_is_cut_does_not_matter(whole, stops, cuts):
    matcher, given, rest = StopStrings(stops), "", whole
    for cut in cuts:
        given += matcher.push(rest[:cut])
        rest = rest[cut:]
    given += matcher.flush()
    # The naive oracle: letter by letter, until the text ends in a stop string.
    for end in range(len(whole) + 1):
        found = [stop for stop in stops if whole[:end].endswith(stop)]
        if found:
            assert matcher.hit and given == whole[: end - max(map(len, found))]
            return
    assert not matcher.hit and given == whole


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prompts": []}, "no prompts"),
        ({"prompts": [[1], []]}, "prompt 1 is empty"),
        ({"prompts": [1, 2]}, "prompt 0 is 1, and not a list"),
        ({"prompts": "text"}, "lists of token ids"),
        ({"prompts": [[1.5]]}, "whole number, and was 1.5"),
        ({"prompts": [[60]]}, "prompt 0 has the id 60, and the model's vocabulary is 0 to 59"),
        ({"prompts": [[-1]]}, "the id -1"),
        ({"eos_ids": [99]}, "eos_ids has the id 99"),
        ({"eos_ids": 2}, "eos_ids is a list of token ids, such as .2., and was 2"),
        ({"eos_ids": [2.5]}, "An id of eos_ids is a whole number, and was 2.5"),
        ({"eos_ids": [True]}, "An id of eos_ids is a whole number, and was True"),
        ({"forbidden": [60]}, "forbidden has the id 60"),
        ({"forbidden_first": 3}, "forbidden_first is a list of token ids"),
        ({"forbidden": range(60)}, "All 60 tokens are forbidden"),
        ({"stop": [[]]}, "stop is empty"),
        ({"stop": 3}, "lists of token ids, and not 3"),
        ({"seed": 1.5}, "The seed is a whole number, and was 1.5"),
        ({"max_new_tokens": 0}, "max_new_tokens is 1 or more, and was 0"),
        ({"max_new_tokens": 2.0}, "max_new_tokens is a whole number"),
        ({"seed": -1}, "seed is 0 or more"),
        ({"start_ids": [0]}, "CausalLM has none"),
        ({"max_new_tokens": 39}, "together 41; the model has learned 40 .* ask for 38"),
    ],
)
def test_refuses(arguments, message):
    model = models.shared("learned")
    with pytest.raises(ValueError, match=message):
        generate(model, **{"prompts": [[1, 2]], "max_new_tokens": 4, **arguments})


def test_what_is_iterable_is_a_list_of_ids(shared):
    """A generator is read once, and holds for all rows."""
    arguments = {"max_new_tokens": 6, "seed": np.int64(3)}
    free = generate(shared, PROMPTS, **arguments)
    end = free[1].ids[2]
    expected = generate(shared, PROMPTS, eos_ids=[end], **arguments)
    assert expected[1].reason == "eos" and expected != free
    for eos_ids in (iter([end]), np.array([end]), {end}):
        assert generate(shared, PROMPTS, eos_ids=eos_ids, **arguments) == expected
    stop = [free[0].ids[1:3]]
    assert generate(shared, PROMPTS, stop=iter(stop), **arguments) == generate(
        shared, PROMPTS, stop=stop, **arguments
    )


class Unhashable:
    __hash__ = None

    def __call__(self, logits, history):
        return logits


@pytest.mark.parametrize(
    ("sampler", "message"),
    [(None, "such as sampler_of.0.7., and was None"), (Unhashable(), "Unhashable has no hash")],
)
def test_refuses_what_is_no_sampler(sampler, message, shared):
    with pytest.raises(TypeError, match=message):
        generate(shared, [[1]], max_new_tokens=1, sampler=sampler)


def test_refuses_other_networks_and_prompts():
    with pytest.raises(TypeError, match="CausalLM or a Seq2Seq .* this is a Sequential"):
        generate(keras.Sequential(), [[1]])
    model = models.translator()
    with pytest.raises(ValueError, match="needs start_ids"):
        generate(model, [[1]])
    with pytest.raises(ValueError, match="41 ids, and the encoder 40 positions"):
        generate(model, [[1] * 41], start_ids=[0], max_new_tokens=2)
    with pytest.raises(ValueError, match=r"\(batch, frames, channels\), and these are \(4, 3\)"):
        generate(models.sound(), np.ones((4, 3)), start_ids=[0], max_new_tokens=2)
    with pytest.raises(ValueError, match="stop is a list of strings"):
        stream(model, Bytes(), "\x01", stop="\n", start_ids=[0])
    with pytest.raises(ValueError, match="give .'text'."):
        generate_text(model, Bytes(), "text")
    # Rounded up to a bucket, but not beyond the encoder's positions.
    assert batch_of(model, [[1] * 39], 2, [0]).inputs["encoder_token_ids"].shape == (1, 40)
