"""The command line, called as a user calls it."""

import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfbig.cli.main import UsageError, main
from tfbig.cli.predict import read, write
from tfbig.data import breast_cancer


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    assert main(["tfbig", "train", "--driver=loop", "--epochs=2", f"--output={folder}"]) == 0
    return folder


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["recipes", "--help"]])
def test_help_loads_no_tensorflow(arguments):
    code = (
        "import sys; from tfbig.cli.main import main; status = main(['tfbig', *sys.argv[1:]]);"
        "assert not {'tensorflow', 'keras'} & set(sys.modules); sys.exit(status)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert ("--driver" if arguments[0] == "train" else "recipes") in result.stdout


def test_as_a_module():
    result = subprocess.run(
        [sys.executable, "-m", "tfbig", "recipes"], capture_output=True, text=True
    )
    assert result.returncode == 0 and result.stdout.startswith("diagnosis")


def test_train_writes_its_files(trained):
    assert sorted(p.name for p in trained.iterdir()) == [
        "curves.png",
        "history.json",
        "model.keras",
        "run.json",
        "scores.json",
    ]
    assert len(json.loads((trained / "history.json").read_text())["loop"]["loss"]) == 2


def test_evaluate(trained, capsys):
    assert main(["tfbig", "evaluate", f"--model={trained}/model.keras", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((trained / "scores.json").read_text())
    assert main(["tfbig", "evaluate", f"--model={trained}/model.keras"]) == 0
    assert "Held out: 114 examples" in capsys.readouterr().out


def test_evaluate_holds_out_the_rows_of_the_training(tmp_path, capsys):
    assert main(["tfbig", "train", "--driver=fit", "--seed=5", f"--output={tmp_path}"]) == 0
    command = ["tfbig", "evaluate", f"--model={tmp_path}/model.keras", "--json"]
    capsys.readouterr()
    assert main(command) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == json.loads((tmp_path / "scores.json").read_text()) and not err
    assert main([*command, "--seed=6"]) == 0
    out, err = capsys.readouterr()
    assert "the seed of the training was 5" in err and json.loads(out)
    (tmp_path / "run.json").unlink()
    assert main(command) == 0
    assert "is not known" in capsys.readouterr().err
    assert main([*command, "--seed=5"]) == 0
    assert not capsys.readouterr().err


@pytest.mark.parametrize("kind", ["csv", "csv with headings", "npy"])
def test_predict(kind, trained, tmp_path, capsys):
    import keras

    x = breast_cancer().x_test[:5]
    path = tmp_path / ("x.npy" if kind == "npy" else "x.csv")
    if kind == "npy":
        np.save(path, x)
    else:
        header = ",".join(breast_cancer().feature_names) if "headings" in kind else ""
        np.savetxt(path, x, "%.9g", ",", header=header, comments="")
    model = keras.models.load_model(trained / "model.keras")
    expected = model.predict(x, verbose=0)
    command = ["tfbig", "predict", f"--model={trained}/model.keras", f"--input={path}"]
    assert main(command) == 0
    lines = capsys.readouterr().out.splitlines()
    np.testing.assert_allclose([float(v) for v in lines], expected[:, 0], rtol=1e-4)
    assert main([*command, f"--output={tmp_path}/y.npy"]) == 0
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), expected, rtol=1e-6)


def test_parity(capsys):
    assert main(["tfbig", "parity"]) == 0
    assert "The gradients are the same" in capsys.readouterr().out
    assert main(["tfbig", "parity", "--json", "--seed=4"]) == 0
    assert json.loads(capsys.readouterr().out)["matches"]


def test_flagfile(tmp_path, capsys):
    (tmp_path / "flags").write_text("--epochs=1\n--driver=fit\n")
    command = ["tfbig", "train", f"--flagfile={tmp_path}/flags", f"--output={tmp_path}/out"]
    assert main(command) == 0
    assert list(json.loads((tmp_path / "out" / "history.json").read_text())) == ["fit"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tain"], "no verb 'tain'; did you mean 'train'?"),
        (["train", "--epoch=3"], "Did you mean: epochs"),
        (["train", "--epochs=none"], "epochs"),
        (["train", "--epochs=0"], "lower bound|positive"),
        (["train", "--driver=sgd"], "fit\\|loop\\|both"),
        (["train", "--recipe=diagnoss"], "Did you mean 'diagnosis'?"),
        (["train", "diagnosis"], "'diagnosis' is not a flag"),
        (["evaluate"], "--model=FILE.keras is missing"),
        (["evaluate", "--model=nowhere.keras"], "there is no file nowhere.keras"),
        (["train", "--output=/dev/null/x"], "/dev/null"),
        (["predict", "--model=a.keras"], "--input=FILE.csv or FILE.npy is missing"),
        (["predict", "--input=nowhere.csv"], "there is no file nowhere.csv"),
    ],
)
def test_wrong_calls_get_one_line_and_status_2(arguments, message, capsys):
    import re

    assert main(["tfbig", *arguments]) == 2
    error = capsys.readouterr().err
    assert re.search(message, error) and "Traceback" not in error


def test_wrong_files(trained, tmp_path, capsys):
    model = f"--model={trained}/model.keras"

    def message(name, content):
        (tmp_path / name).write_bytes(content)
        assert main(["tfbig", "predict", model, f"--input={tmp_path / name}"]) == 2
        return capsys.readouterr().err

    assert "takes 30 features" in message("narrow.csv", b"1,2,3\n")
    assert "row 2: 2 values" in message("ragged.csv", b"1,2,3\n4,5\n")
    assert "2 rows have missing or infinite values: 2, 4;" in message(
        "gap.csv", b"1,2,3\n4,,6\n7,8,9\ninf,1,2\n"
    )
    assert "could not convert" in message("text.csv", b"1,2\n3,abc\n")
    assert "has no rows" in message("empty.csv", b"")
    assert "no array of numbers" in message("bad.npy", b"not numpy")
    assert "ends in .csv or .npy" in message("x.txt", b"1,2")
    pickled = tmp_path / "evil.npy"
    np.save(pickled, np.array([print], dtype=object), allow_pickle=True)
    assert main(["tfbig", "predict", model, f"--input={pickled}"]) == 2
    assert "allow_pickle=False" in capsys.readouterr().err
    (tmp_path / "x.h5").write_bytes(b"")
    assert main(["tfbig", "evaluate", f"--model={tmp_path}/x.h5"]) == 2
    assert "--model ends in .keras" in capsys.readouterr().err
    (tmp_path / "no.keras").write_bytes(b"no zip")
    assert main(["tfbig", "evaluate", f"--model={tmp_path}/no.keras"]) == 2
    assert "cannot be read as a .keras model" in capsys.readouterr().err


FLOATS = st.floats(-(2.0**99), 2.0**99, width=32)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 5).flatmap(
        lambda width: st.lists(st.lists(FLOATS, min_size=width, max_size=width), min_size=1)
    )
)
def test_csv_gives_back_what_was_written(tmp_path_factory, table):
    path = tmp_path_factory.mktemp("csv") / "x.csv"
    write(np.array(table, "float64"), path)
    # 9 significant digits were written: a float32 has 7.
    np.testing.assert_allclose(read(path), np.array(table, "float32"), rtol=1e-6)


@settings(max_examples=120, deadline=None)
@given(st.binary(max_size=60), st.sampled_from([".csv", ".npy"]))
def test_any_bytes_are_numbers_or_one_clear_error(tmp_path_factory, content, suffix):
    path = tmp_path_factory.mktemp("bytes") / f"x{suffix}"
    path.write_bytes(content)
    try:
        assert np.isfinite(read(path)).all()
    except UsageError as error:
        assert str(path) in str(error)
