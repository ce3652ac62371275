"""embed, convert and certify, called as a user calls them."""

import json

import numpy as np
import pytest

from tests.cli.language_folders import call, real, refused
from tfbig.interop.loading import load

# embed


def test_embed_writes_vectors(folder, tmp_path, capsys):
    lines = ["hello world", "the", "the quick brown fox"]
    (tmp_path / "lines.txt").write_text("\n".join(lines) + "\n")
    command = ["embed", f"--model={folder}", f"--input={tmp_path}/lines.txt", "--batch_size=2"]
    call(capsys, *command, f"--output={tmp_path}/x.npy")
    vectors = np.load(tmp_path / "x.npy")
    assert vectors.shape == (3, 16) and vectors.dtype == np.float32
    printed = call(capsys, *command).out.splitlines()
    read = [[float(v) for v in line.split(",")] for line in printed]
    # Six digits were printed.
    np.testing.assert_allclose(read, vectors, rtol=1e-5)


def test_embed_says_how_minilm_finds_them_similar(capsys):
    real("minilm")
    texts = [
        "That is a happy person",
        "That is a happy dog",
        "That is a very happy person",
        "Today is a sunny day",
    ]
    said = call(capsys, "embed", "--model=minilm", "--similar", *(f"--text={t}" for t in texts))
    lines = said.out.splitlines()
    assert lines[0].strip() == texts[0]
    # As its model card publishes them.
    assert [line.split()[0] for line in lines[1:]] == ["0.6946", "0.9429", "0.2569"]


def test_embed_refuses_wrong_calls(folder, tmp_path, capsys):
    assert "one of --text" in refused(capsys, "embed", f"--model={folder}")
    command = ["embed", f"--model={folder}", "--text=a"]
    assert "there is one" in refused(capsys, *command, "--similar")
    assert "ends in .npy or .csv" in refused(capsys, *command, "--output=x.txt")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\xff")
    said = refused(capsys, "embed", f"--model={folder}", f"--input={tmp_path}/binary")
    assert "no text in UTF-8" in said


# convert


def weights(path):
    return [np.asarray(v) for v in load(path)[0].variables]


def test_convert_there_and_back_loses_nothing(folder, tmp_path, capsys):
    (tmp_path / "keras").mkdir()
    keras_file = tmp_path / "keras" / "model.keras"
    call(capsys, "convert", f"--input={folder}", f"--output={keras_file}")
    call(capsys, "convert", f"--input={keras_file}", f"--output={tmp_path}/back")
    np.testing.assert_equal(weights(tmp_path / "back"), weights(folder))
    one, two = load(folder)[1], load(tmp_path / "back")[1]
    assert one.encode("hello world") == two.encode("hello world")
    assert one.eos_ids == two.eos_ids and one.chat_template == two.chat_template
    config = json.loads((tmp_path / "back" / "config.json").read_text())
    assert config["eos_token_id"] == 0 and config["bos_token_id"] is None
    # The .keras file is a model for the other verbs, with the tokenizer beside it.
    command = ["generate", "--prompt=the", "--max_new_tokens=3"]
    same = [call(capsys, *command, f"--model={path}").out for path in (keras_file, folder)]
    assert same[0] == same[1]


def test_convert_to_another_dtype_in_shards(folder, tmp_path, capsys):
    call(
        capsys,
        "convert",
        f"--input={folder}",
        f"--output={tmp_path}/small",
        "--dtype=bfloat16",
        "--max_shard_gb=0.00001",
    )
    assert len(list((tmp_path / "small").glob("model-*.safetensors"))) > 1
    config = json.loads((tmp_path / "small" / "config.json").read_text())
    assert config["dtype"] == "bfloat16"
    for small, whole in zip(weights(tmp_path / "small"), weights(folder), strict=True):
        # 8 bits of mantissa.
        np.testing.assert_allclose(small, whole, rtol=2**-8)
    # By default the type is kept.
    call(capsys, "convert", f"--input={tmp_path}/small", f"--output={tmp_path}/same")
    config = json.loads((tmp_path / "same" / "config.json").read_text())
    assert config["dtype"] == "bfloat16"
    np.testing.assert_equal(weights(tmp_path / "same"), weights(tmp_path / "small"))


def test_transformers_loads_what_was_converted(folder, loaded, tmp_path, capsys):
    torch = pytest.importorskip("torch", reason="the oracle is PyTorch")
    transformers = pytest.importorskip("transformers", reason="the oracle is transformers")
    call(capsys, "convert", f"--input={folder}", f"--output={tmp_path}/new")
    module = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "new")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "new")
    ids = tokenizer("the quick brown", return_tensors="pt").input_ids
    with torch.no_grad():
        theirs = module(ids).logits.numpy()
    ours = np.asarray(loaded[0](ids.numpy()))
    # Float32 sums in other orders.
    np.testing.assert_allclose(ours, theirs, atol=1e-4)
    assert tokenizer.eos_token_id == 0


def test_convert_overwrites_nothing(folder, tmp_path, capsys):
    assert "already" in refused(capsys, "convert", f"--input={folder}", f"--output={folder}")
    (tmp_path / "tokenizer.json").write_text("{}")
    said = refused(capsys, "convert", f"--input={folder}", f"--output={tmp_path}/a.keras")
    assert "tokenizer.json is there already" in said
    assert "--input and --output" in refused(capsys, "convert", f"--input={folder}")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["tokenizer.json"]


# certify


def test_certify(folder, tmp_path, capsys):
    pytest.importorskip("torch", reason="a certificate compares with PyTorch")
    pytest.importorskip("transformers", reason="a certificate compares with transformers")
    said = call(capsys, "certify", folder, f"--output={tmp_path}/certificate.json")
    assert "PASSED" in said.out and "hidden states of 2 layers" in said.out
    assert "compared in" in said.err
    written = json.loads((tmp_path / "certificate.json").read_text())
    assert written["passed"] and written["model"] == "LlamaForCausalLM"


def test_certify_tells_a_failure(folder, tmp_path, monkeypatch, capsys):
    from tfbig.interop import certificate

    failed = certificate.Certificate(
        "LlamaForCausalLM", 1e-6, None, (2e-7, 3e-2), 1e-5, float("nan"), ("bias",), False
    )
    monkeypatch.setattr(certificate, "certify", lambda path: failed)
    said = call(capsys, "certify", f"--model={folder}", status=1)
    lines = {line.split("  ")[1]: line for line in said.out.splitlines() if line[:2] == "  "}
    assert lines["outputs"].endswith("1.0e-06")
    assert lines["outputs, padded on the left"].endswith("not measured")
    assert lines["hidden states of 2 layers, the largest"].endswith("3.0e-02  TOO LARGE")
    assert lines["weights after 5 steps of AdamW"].endswith("nan  TOO LARGE")
    assert lines["written again"].endswith("CHANGED") and "FAILED" in said.out


def test_certify_refuses_wrong_calls(folder, tmp_path, capsys):
    assert "tfbig certify FOLDER" in refused(capsys, "certify")
    assert "'b' is not a flag" in refused(capsys, "certify", "a", "b")
    assert "'b' is not a flag" in refused(capsys, "certify", "--model=a", "b")
    assert "ends in .json" in refused(capsys, "certify", folder, "--output=x.txt")
    assert "no folder" in refused(capsys, "certify", folder, f"--output={tmp_path}/no/x.json")
