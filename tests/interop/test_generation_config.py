"""What a checkpoint says of its generation: read, or refused, as `transformers` writes it."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfbig.interop.checkpoint import CheckpointError
from tfbig.interop.generation_config import generation_config


def written(folder, fields, name="generation_config.json"):
    text = fields if isinstance(fields, str) else json.dumps(fields)
    (folder / name).write_text(text)
    return folder


WHISPER = {
    "begin_suppress_tokens": [220, 50256],
    "decoder_start_token_id": 50257,
    "suppress_tokens": [2, 1, 7],
}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, {}),
        ({"temperature": 0.7, "suppress_tokens": None, "bad_words_ids": []}, {}),
        # opus-mt's.
        (
            {"bad_words_ids": [[58100]], "decoder_start_token_id": 58100, "num_beams": 4},
            {"forbidden": [58100], "start_ids": [58100]},
        ),
        (WHISPER, {"forbidden": [1, 2, 7], "forbidden_first": [220, 50256], "start_ids": [50257]}),
        # mBART's: the language is the first token that it writes.
        ({"decoder_start_token_id": 2, "forced_bos_token_id": 250004}, {"start_ids": [2, 250004]}),
        ({"forced_bos_token_id": 3}, {}),
        ({"bad_words_ids": [[3], [4, 5], [3]], "suppress_tokens": [1]}, {"forbidden": [1, 3]}),
    ],
)
def test_what_it_says(fields, expected, tmp_path):
    assert generation_config(written(tmp_path, fields)) == expected


def test_which_file_says_it(tmp_path):
    assert generation_config(tmp_path) == generation_config(tmp_path / "model.gguf") == {}
    written(tmp_path, {"bad_words_ids": [[9]]}, "config.json")
    assert generation_config(tmp_path) == {"forbidden": [9]}
    # As for transformers: where it is, config.json is not asked.
    written(tmp_path, {"suppress_tokens": [1]})
    assert generation_config(str(tmp_path)) == {"forbidden": [1]}


def test_reads_what_transformers_writes(tmp_path):
    transformers = pytest.importorskip("transformers", reason="it writes the file")
    transformers.GenerationConfig(**WHISPER, bad_words_ids=[[5]]).save_pretrained(tmp_path)
    expected = {"forbidden": [1, 2, 5, 7], "forbidden_first": [220, 50256], "start_ids": [50257]}
    assert generation_config(tmp_path) == expected


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ("[]", "generation_config.json"),
        ("{", "generation_config.json"),
        ("[" * 100_000, "generation_config.json"),
        ('{"suppress_tokens": [1], "suppress_tokens": [2]}', "there twice"),
        ({"suppress_tokens": 3}, "suppress_tokens is 3, and token ids were expected"),
        ({"suppress_tokens": False}, "suppress_tokens is False"),
        ({"suppress_tokens": [-1]}, "suppress_tokens is .-1."),
        ({"suppress_tokens": [2**40]}, "suppress_tokens"),
        ({"begin_suppress_tokens": [True]}, "begin_suppress_tokens is .True."),
        ({"begin_suppress_tokens": [1.5]}, "begin_suppress_tokens is .1.5."),
        ({"bad_words_ids": {"a": 1}}, "bad_words_ids is .*, and a list of lists"),
        ({"bad_words_ids": [3]}, "bad_words_ids is 3, and token ids"),
        ({"bad_words_ids": [["a"]]}, "bad_words_ids is .'a'."),
        ({"decoder_start_token_id": [1]}, "decoder_start_token_id is "),
        ({"decoder_start_token_id": 1, "forced_bos_token_id": "x"}, "forced_bos_token_id is .'x'."),
    ],
)
def test_refuses(fields, message, tmp_path):
    with pytest.raises(CheckpointError, match=message):
        generation_config(written(tmp_path, fields))


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 9) | st.floats() | st.text("ab", max_size=2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab"), inner, max_size=2),
    max_leaves=6,
)
NAMES = ["bad_words_ids", "suppress_tokens", "begin_suppress_tokens", "decoder_start_token_id"]


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.sampled_from([*NAMES, "forced_bos_token_id"]), ANYTHING, max_size=3))
def test_ids_come_or_it_is_refused(tmp_path_factory, fields):
    folder = written(tmp_path_factory.getbasetemp(), fields)
    try:
        found = generation_config(folder)
    except CheckpointError:
        return
    assert set(found) <= {"forbidden", "forbidden_first", "start_ids"}
    assert all(type(i) is int and i >= 0 for ids in found.values() for i in ids)
