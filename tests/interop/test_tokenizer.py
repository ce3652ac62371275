"""The tokenizer type: round trips, streams, padding, chats and their masks."""

import dataclasses
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.interop import small_tokenizers as small
from tfbig.interop import chat_answers, padding, tokenizer_models, tokenizer_sentencepiece
from tfbig.interop.chat import ChatLimits, ChatTemplateError
from tfbig.interop.tokenizer import SpecialTokens, Tokenizer, TokenizerError
from tfbig.interop.tokenizer_files import load_tokenizer

ANY_TEXT = st.text(max_size=40) | st.sampled_from(small.TEXTS)
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TALK = [
    {"role": "user", "content": "hi"},
    {"role": "assistant", "content": "hello you"},
    {"role": "user", "content": "bye"},
    {"role": "assistant", "content": "bye 😀"},
]


@pytest.fixture(scope="module")
def bytes_bpe(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bpe")
    special = [small.END, "<|im_start|>", "<|im_end|>"]
    config = {"tokenizer_class": "GPT2Tokenizer", "chat_template": CHATML}
    config |= {"eos_token": "<|im_end|>", "additional_special_tokens": special}
    small.write(folder, small.bpe_files(special), config)
    (folder / "generation_config.json").write_text('{"eos_token_id": [0, 2]}')
    return load_tokenizer(folder)


@pytest.fixture(scope="module")
def pieces_bpe():
    pytest.importorskip("sentencepiece", reason="it trains the model of the test")
    model = tokenizer_sentencepiece.read_sentencepiece(small.sentencepiece_model(**small.LLAMA))
    return Tokenizer(tokenizer_sentencepiece.build_sentencepiece(model))


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    return load_tokenizer(
        small.write(tmp_path_factory.mktemp("bert"), small.wordpiece_file(), None)
    )


@settings(max_examples=150, deadline=None)
@given(text=ANY_TEXT)
def test_every_text_comes_back_from_bytes(bytes_bpe, text):
    assert bytes_bpe.decode(bytes_bpe.encode(text), skip_special_tokens=False) == text


def streamed(tokenizer, ids, skip_special_tokens=True):
    stream = tokenizer.stream(skip_special_tokens)
    return [*[stream.push(i) for i in ids], stream.flush()]


@pytest.mark.parametrize("kind", ["bytes_bpe", "pieces_bpe", "words"])
def test_a_stream_is_the_text(kind, request):
    tokenizer = request.getfixturevalue(kind)

    @settings(max_examples=80, deadline=None, derandomize=True)
    @given(ANY_TEXT, st.booleans())
    def same(text, skip):
        ids = tokenizer.encode(text)
        pieces = streamed(tokenizer, ids, skip)
        whole = tokenizer.decode(ids, skip)
        assert "".join(pieces) == whole
        if "\N{REPLACEMENT CHARACTER}" not in text:
            assert "\N{REPLACEMENT CHARACTER}" not in "".join(pieces)

    same()


@pytest.mark.parametrize("kind", ["bytes_bpe", "pieces_bpe"])
def test_a_stream_of_any_ids_is_the_text(kind, request):
    """What an untrained model says: half characters, special tokens, anything."""
    tokenizer = request.getfixturevalue(kind)
    one = st.integers(0, tokenizer.vocabulary_size - 1)

    @settings(max_examples=80, deadline=None, derandomize=True)
    @given(st.lists(one, max_size=20))
    def same(ids):
        whole, pieces = tokenizer.decode(ids), "".join(streamed(tokenizer, ids))
        # Of byte tokens in a row that are no UTF-8, decode gives up also the good ones before.
        if kind == "bytes_bpe" or "\N{REPLACEMENT CHARACTER}" not in whole:
            assert pieces == whole

    same()


def test_no_half_character_is_given(bytes_bpe):
    # 😀 is four bytes, 次 three; neither is in the lines that the vocabulary is of.
    ids = bytes_bpe.encode("a😀次")
    assert len(ids) == 1 + 4 + 3
    assert streamed(bytes_bpe, ids) == ["a", "", "", "", "😀", "", "", "次", ""]
    assert streamed(bytes_bpe, ids[:3]) == ["a", "", "", "\N{REPLACEMENT CHARACTER}"]


def test_a_stream_keeps_the_spaces_between_words(pieces_bpe):
    ids = pieces_bpe.encode("hello  world")
    assert "".join(streamed(pieces_bpe, ids)) == "hello  world"
    first = streamed(pieces_bpe, ids)[0]
    assert first and not first.startswith(" ")


def test_padding_by_hand(bytes_bpe):
    ids, mask = padding.pad([[1, 2, 3], [4]], pad_id=9, length=4)
    assert ids.tolist() == [[1, 2, 3, 9], [4, 9, 9, 9]]
    assert mask.tolist() == [[1, 1, 1, 0], [1, 0, 0, 0]]
    ids, mask = padding.pad([[1, 2, 3], [4]], pad_id=9, side="left")
    assert ids.tolist() == [[1, 2, 3], [9, 9, 4]] and mask.tolist() == [[1, 1, 1], [0, 0, 1]]
    assert ids.dtype == mask.dtype == np.int32
    assert padding.pad([], 0)[0].shape == (0, 0)
    with pytest.raises(ValueError, match="of 3 ids does not fit into length=2"):
        padding.pad([[1, 2, 3]], 0, length=2)
    with pytest.raises(ValueError, match="'right' or 'left', and it is 'top'"):
        padding.pad([[1]], 0, side="top")
    padded = dataclasses.replace(bytes_bpe, special=SpecialTokens(pad_id=7))
    assert padded.pad([[1], []])[0].tolist() == [[1], [7]]


def test_ids_and_tokens(bytes_bpe, words):
    assert bytes_bpe.eos_ids == {0, 2} and bytes_bpe.special.eos_id == 2
    assert words.encode("Hello") == [2, words.token_id("hello"), 3]
    assert words.encode("Hello", add_special_tokens=False) == [words.token_id("hello")]
    assert words.id_token(2) == "[CLS]" and dict(words.special.items())["mask"] == 4
    # Not a number by hand: training breaks ties between equal pairs as it likes.
    size = len(words.backend.get_vocab())
    assert words.vocabulary_size == size > 100
    assert words.decode(np.array([2, words.token_id("hello")])) == "hello"
    assert words.decode([10**6]) == ""  # a row of the embedding without a token
    for wrong, message in [
        (lambda: words.token_id("nosuch"), "no token 'nosuch'"),
        (lambda: words.id_token(10**6), f"no id 1000000: {size} tokens"),
        (lambda: words.id_token(-1), "-1 is no id"),
        (lambda: words.decode([-100]), "cannot be decoded"),
        (lambda: words.encode(b"hi"), "A text is a str"),
        (lambda: words.encode("\ud800"), "cannot be encoded"),
        (lambda: words.apply_chat_template(TALK), "no chat template"),
    ]:
        with pytest.raises(TokenizerError, match=message):
            wrong()


def test_a_missing_package_is_answered_by_the_line_that_installs_it(monkeypatch, tmp_path):
    small.write(tmp_path, {"vocab.txt": "[UNK]\n"}, None)
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ImportError, match=r'pip install "tfbig\[interop\]"'):
        load_tokenizer(tmp_path)


def test_a_tokenizers_limits_are_its_templates(bytes_bpe):
    tight = dataclasses.replace(bytes_bpe, chat_limits=ChatLimits(output_chars=10))
    with pytest.raises(ChatTemplateError, match="passed 10 characters"):
        tight.apply_chat_template(TALK)


def test_an_absurd_id_is_refused():
    with pytest.raises(TokenizerError, match="the id 4000000000"):
        Tokenizer(tokenizer_models.byte_level_bpe({"a": 4_000_000_000}, []))


def test_the_mask_of_answers_by_hand():
    # "Q:a" "A:" "b" "." with the end of turn "." and a newline behind it.
    ids, offsets = [1, 5, 6, 2, 3], [(0, 3), (3, 5), (5, 6), (6, 7), (7, 8)]
    assert chat_answers.answer_mask(ids, offsets, [(5, 8)], {2}) == [0, 0, 1, 1, 0]
    assert chat_answers.answer_mask(ids, offsets, [(5, 8)], set()) == [0, 0, 1, 1, 1]
    assert chat_answers.answer_mask(ids, offsets, [], {2}) == [0] * 5


def test_encode_chat(bytes_bpe):
    ids, mask = bytes_bpe.encode_chat(TALK)
    assert ids == bytes_bpe.encode(bytes_bpe.apply_chat_template(TALK, False), False)
    answers = bytes_bpe.decode([i for i, on in zip(ids, mask) if on], skip_special_tokens=False)
    assert answers == "hello you<|im_end|>bye 😀<|im_end|>"
    # What comes before an answer is the prompt that the model is given for it, token by token.
    first = mask.index(1)
    assert ids[:first] == bytes_bpe.encode(bytes_bpe.apply_chat_template(TALK[:1]), False)
    both = bytes_bpe.encode_chats([TALK, TALK[:2]])
    assert both[0] == (ids, mask) and both[1] == bytes_bpe.encode_chat(TALK[:2])
    assert sum(bytes_bpe.encode_chat(TALK[:1])[1]) == 0


def test_a_template_that_rewrites_earlier_turns_is_told(bytes_bpe):
    forgetful = CHATML.replace("{{ m.content }}", "{{ m.content if loop.last else '' }}")
    with pytest.raises(ChatTemplateError, match="does not only append: .* answer 0 is no prefix"):
        dataclasses.replace(bytes_bpe, chat_template=forgetful).encode_chat(TALK)


def test_a_mask_of_a_sentencepiece_chat(pieces_bpe):
    llama = "{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]{% else %} {{ m.content }}</s>{% endif %}{% endfor %}"  # noqa: E501
    tokenizer = dataclasses.replace(pieces_bpe, chat_template=llama)
    ids, mask = tokenizer.encode_chat(TALK)
    answers = tokenizer.decode([i for i, on in zip(ids, mask) if on], skip_special_tokens=False)
    assert answers == "hello you</s> bye 😀</s>"
