"""generate and chat, called as a user calls them, and what bad input gets."""

import io
import json
import re
import shutil
import subprocess
import sys

import pytest

from tests.cli import language_folders
from tests.cli.language_folders import call, real, refused
from tfbig import generation
from tfbig.cli.main import main
from tfbig.interop.loading import load


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


def test_the_start_of_tensorflow_says_nothing(folder):
    """It writes to the error stream of the process, whatever TF_CPP_MIN_LOG_LEVEL says."""
    command = [sys.executable, "-m", "tfbig", "generate", f"--model={folder}", "--prompt=the"]
    result = subprocess.run([*command, "--max_new_tokens=2"], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert re.fullmatch(r"2 tokens in [^\n]*\n", result.stderr), result.stderr


# generate


def test_generate_writes_what_the_library_generates(folder, loaded, capsys):
    (expected,) = generation.generate_text(*loaded, ["the quick"], max_new_tokens=6)
    said = call(capsys, "generate", f"--model={folder}", "--prompt=the quick", "--max_new_tokens=6")
    assert said.out == expected.text + "\n"
    found = re.fullmatch(
        r"6 tokens in [\d.]+ s, the first after [\d.]+ s; [\d.]+ tokens/s once compiled; "
        r"ended by length\n",
        said.err,
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


def test_generate_keeps_to_what_the_model_forbids(folder, loaded, tmp_path, capsys):
    """generation_config.json of OPUS-MT and Whisper names tokens that are not to be written."""
    model, tokenizer = loaded
    (free,) = generation.generate(model, [tokenizer.encode("the")], max_new_tokens=2)
    strict = shutil.copytree(folder, tmp_path / "strict")
    said = json.dumps({"bad_words_ids": [[free.ids[0]]]})
    (strict / "generation_config.json").write_text(said)
    (expected,) = generation.generate_text(
        model, tokenizer, ["the"], max_new_tokens=2, forbidden=[free.ids[0]]
    )
    assert free.ids[0] not in expected.ids
    found = call(capsys, "generate", f"--model={strict}", "--prompt=the", "--max_new_tokens=2")
    assert found.out == expected.text + "\n"


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
