"""generate, chat, embed, convert and certify, called as a user calls them."""

import io
import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

from tests.cli import language_folders
from tfbig import generation
from tfbig.cli.main import main
from tfbig.interop.known import path_of
from tfbig.interop.loading import load


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return language_folders.write(tmp_path_factory.mktemp("models") / "llama")


@pytest.fixture(scope="module")
def loaded(folder):
    return load(folder)


@pytest.fixture
def traced(folder, loaded, monkeypatch):
    """The folder, of which the verbs get one model, so that it is traced once for all tests."""
    monkeypatch.setattr("tfbig.interop.loading.load", lambda path, dtype=None: loaded)
    return folder


def real(name):
    """A model that comes as a package."""
    try:
        return str(path_of(name))
    except ImportError as error:
        pytest.skip(str(error))


def call(capsys, *arguments, status=0):
    """What a command prints; its exit status is checked."""
    capsys.readouterr()
    assert main(["tfbig", *map(str, arguments)]) == status, capsys.readouterr().err
    return capsys.readouterr()


def refused(capsys, *arguments):
    """The one line that a wrong call gets."""
    said = call(capsys, *arguments, status=2).err
    assert said.startswith("tfbig: ") and said.count("\n") == 1, said
    return said


@pytest.mark.parametrize("verb", ["generate", "chat", "embed", "convert", "certify"])
def test_help_loads_no_tensorflow(verb):
    code = (
        "import sys; from tfbig.cli.main import main; status = main(['tfbig', *sys.argv[1:]]);"
        "assert not {'tensorflow', 'keras', 'torch'} & set(sys.modules); sys.exit(status)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, verb, "--help"], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert "--model" in result.stdout or "--input" in result.stdout


# generate


def test_generate_writes_what_the_library_generates(folder, loaded, capsys):
    (expected,) = generation.generate_text(*loaded, ["the quick"], max_new_tokens=6)
    said = call(capsys, "generate", f"--model={folder}", "--prompt=the quick", "--max_new_tokens=6")
    assert said.out == expected.text + "\n"
    found = re.fullmatch(
        r"6 tokens; the first after [\d.]+ s, then [\d.]+ tokens/s; ended by length\n", said.err
    )
    assert found, said.err


def test_generate_gives_the_pieces_as_they_come(traced, monkeypatch, capsys):
    seen = []

    def stream(*arguments, **options):
        for piece in ("one", " two"):
            yield piece
            seen.append(sys.stdout.getvalue())
        return "eos"

    monkeypatch.setattr(generation, "stream", stream)
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert main(["tfbig", "generate", f"--model={traced}", "--prompt=a"]) == 0
    assert seen == ["one", "one two"]
    assert "ended by eos" in capsys.readouterr().err


def test_generate_several_prompts_at_once(traced, loaded, tmp_path, capsys):
    prompts = ["the quick", "hello"]
    (tmp_path / "prompts.txt").write_text("\n".join(prompts) + "\n")
    expected = generation.generate_text(*loaded, prompts, max_new_tokens=5)
    command = ["generate", f"--model={traced}", f"--prompts_file={tmp_path}/prompts.txt"]
    said = call(capsys, *command, "--max_new_tokens=5", "--json")
    assert [json.loads(line) for line in said.out.splitlines()] == [
        {"prompt": p, "text": e.text, "reason": e.reason}
        for p, e in zip(prompts, expected, strict=True)
    ]
    said = call(capsys, *command, "--max_new_tokens=5")
    assert said.out == "".join(f"{p}{e.text}\n\n" for p, e in zip(prompts, expected, strict=True))


def test_generate_samples_by_its_seed(traced, loaded, capsys):
    command = ["generate", f"--model={traced}", "--prompt=the", "--max_new_tokens=6"]
    one, same, other, greedy = (
        call(capsys, *command, *flags).out
        for flags in (
            ["--top_k=50", "--seed=1"],
            ["--top_k=50", "--seed=1", "--temperature=1"],
            ["--top_k=50", "--seed=2"],
            ["--top_p=0.9", "--seed=1", "--temperature=0"],
        )
    )
    assert one == same != other
    (expected,) = generation.generate_text(*loaded, ["the"], max_new_tokens=6)
    assert greedy == expected.text + "\n"


def test_generate_stops_at_a_string(traced, loaded, capsys):
    (whole,) = generation.generate_text(*loaded, ["the"], max_new_tokens=6)
    stop = whole.text[2:4]
    command = ["generate", f"--model={traced}", "--prompt=the", "--max_new_tokens=6"]
    said = call(capsys, *command, "--stop=nowhere", f"--stop={stop}")
    assert said.out == whole.text[: whole.text.index(stop)] + "\n"
    assert said.err.endswith("ended by stop\n")


def test_generate_by_beams(traced, loaded, capsys):
    model, tokenizer = loaded
    (beams,) = generation.beam_search(
        model,
        [tokenizer.encode("the quick")],
        num_beams=2,
        max_new_tokens=4,
        eos_ids=sorted(tokenizer.eos_ids),
    )
    command = ["generate", f"--model={traced}", "--prompt=the quick", "--num_beams=2"]
    said = call(capsys, *command, "--max_new_tokens=4")
    assert said.out == tokenizer.decode(beams[0].ids) + "\n"
    assert re.match(rf"{len(beams[0].ids)} tokens in [\d.]+ s; ended by", said.err)
    assert "without --stop, --seed" in refused(capsys, *command, "--stop=a", "--seed=3")


def test_generate_translates(tmp_path, capsys):
    folder = language_folders.t5(tmp_path / "t5")
    model, tokenizer = load(folder)
    (expected,) = generation.generate_text(
        model, tokenizer, ["the quick"], max_new_tokens=4, start_ids=[0]
    )
    said = call(capsys, "generate", f"--model={folder}", "--prompt=the quick", "--max_new_tokens=4")
    assert said.out == expected.text + "\n"


def test_generate_refuses_what_does_not_write(folder, tmp_path, capsys):
    assert "one of --prompt" in refused(capsys, "generate", f"--model={folder}")
    assert "--model is missing" in refused(capsys, "generate", "--prompt=a")
    said = refused(capsys, "generate", f"--model={folder}", "--prompt=a", "--top_p=3")
    assert "top_p" in said
    assert "is empty" in refused(capsys, "generate", f"--model={folder}", "--prompt=")
    assert "nowhere" in refused(capsys, "generate", "--model=nowhere", "--prompt=a")
    shutil.copytree(folder, tmp_path / "bare")
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        (tmp_path / "bare" / name).unlink()
    said = refused(capsys, "generate", f"--model={tmp_path}/bare", "--prompt=a")
    assert "has no tokenizer" in said


def test_smollm2_says_paris(capsys):
    real("smollm2")
    said = call(
        capsys,
        "generate",
        "--model=smollm2",
        "--prompt=The capital of France is",
        # The first token, for which the step need not be traced.
        "--max_new_tokens=1",
        "--temperature=0",
    )
    assert said.out == " Paris\n"


# Bad input


def _cut(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])


def _pickle(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def _unknown(folder):
    language_folders.edit(folder / "config.json", model_type="mamba")


def _remote_code(folder):
    (folder / "tokenizer.json").unlink()
    language_folders.edit(
        folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["code.T", None]}
    )


def _wrong_shape(folder):
    language_folders.edit(folder / "config.json", hidden_size=8, head_dim=8)


def _missing_shard(folder):
    index = {"metadata": {}, "weight_map": {"model.norm.weight": "model-1-of-2.safetensors"}}
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def _template(folder):
    language_folders.edit(folder / "tokenizer_config.json", chat_template="{% if %}")


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (_cut, "cut short|ends at byte"),
        (_pickle, "is a pickle"),
        (_unknown, "model_type is 'mamba'"),
        (_remote_code, "auto_map names code to run, and none is run"),
        (_wrong_shape, "has shape .* by config.json"),
        (_missing_shard, "model-1-of-2.safetensors"),
    ],
)
def test_bad_input_gets_one_line(harm, message, folder, tmp_path, capsys):
    shutil.copytree(folder, tmp_path / "bad")
    harm(tmp_path / "bad")
    said = refused(capsys, "generate", f"--model={tmp_path}/bad", "--prompt=a")
    assert re.search(message, said)
    said = refused(capsys, "convert", f"--input={tmp_path}/bad", f"--output={tmp_path}/new")
    assert re.search(message, said) and not (tmp_path / "new").exists()


def test_a_damaged_gguf_gets_one_line(tmp_path, capsys):
    (tmp_path / "a.gguf").write_bytes(b"GGUF\3\0\0\0")
    assert "a.gguf" in refused(capsys, "generate", f"--model={tmp_path}/a.gguf", "--prompt=a")


# chat


@pytest.fixture
def prompts(monkeypatch):
    """The texts of the prompts that the model is given; it answers "so 1", "so 2", ..."""
    seen = []

    def stream(model, tokenizer, ids, **arguments):
        seen.append(tokenizer.decode(ids, skip_special_tokens=False))
        yield "so "
        yield str(len(seen))
        return "eos"

    monkeypatch.setattr(generation, "stream", stream)
    return seen


def chat(capsys, monkeypatch, lines, *flags, status=0):
    monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
    return call(capsys, "chat", *flags, status=status)


def test_chat_answers_by_the_template(traced, loaded, monkeypatch, capsys):
    model, tokenizer = loaded
    ids = tokenizer.encode("<|user|>hello<|end|><|assistant|>")
    (expected,) = generation.generate_text(model, tokenizer, [ids], max_new_tokens=5)
    said = chat(capsys, monkeypatch, ["hello"], f"--model={traced}", "--max_new_tokens=5")
    assert said.out == expected.text + "\n"


def test_chat_keeps_what_was_said_and_forgets_it(traced, prompts, monkeypatch, capsys):
    lines = ["a", "", "b", "/reset", "c", "/exit", "d"]
    said = chat(capsys, monkeypatch, lines, f"--model={traced}", "--system=be")
    first = "<|system|>be<|end|><|user|>a<|end|><|assistant|>"
    assert prompts == [
        first,
        f"{first}so 1<|end|><|user|>b<|end|><|assistant|>",
        "<|system|>be<|end|><|user|>c<|end|><|assistant|>",
    ]
    assert said.out == "so 1\nso 2\nso 3\n" and "all is forgotten" in said.err


def test_chat_cuts_a_long_history_from_the_left(traced, prompts, monkeypatch, capsys):
    # A turn is 3 tokens and an answer 6 at most: the prompt of the second has 12, of the third 21.
    said = chat(
        capsys,
        monkeypatch,
        ["a", "b", "c"],
        f"--model={traced}",
        "--max_new_tokens=10",
        "--context=25",
    )
    assert prompts[1].startswith("<|user|>a") and prompts[2].startswith("<|user|>b")
    assert "its oldest 1 questions are forgotten" in said.err
    monkeypatch.setattr(sys, "stdin", io.StringIO("x" * 99 + "\n"))
    said = refused(capsys, "chat", f"--model={traced}", "--max_new_tokens=10", "--context=25")
    assert "the question makes a prompt of" in said
    assert "no room" in refused(capsys, "chat", f"--model={traced}", "--context=9")


def test_ctrl_c_stops_the_answer_and_not_the_program(traced, prompts, monkeypatch, capsys):
    answering = generation.stream

    def stopped(model, tokenizer, ids, **arguments):
        for piece in answering(model, tokenizer, ids, **arguments):
            yield piece
            if len(prompts) == 1:
                raise KeyboardInterrupt

    monkeypatch.setattr(generation, "stream", stopped)
    said = chat(capsys, monkeypatch, ["a", "b"], f"--model={traced}")
    assert said.out == "so \nso 2\n" and "[stopped]" in said.err
    assert "so <|end|><|user|>b" in prompts[1]


def test_chat_takes_a_working_template(folder, tmp_path, monkeypatch, capsys):
    shutil.copytree(folder, tmp_path / "bad")
    _template(tmp_path / "bad")
    said = chat(capsys, monkeypatch, ["a"], f"--model={tmp_path}/bad", status=2)
    assert "The chat template failed" in said.err and said.err.count("\n") == 1
    language_folders.edit(tmp_path / "bad" / "tokenizer_config.json", chat_template=None)
    assert "has no chat template" in refused(capsys, "chat", f"--model={tmp_path}/bad")


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
