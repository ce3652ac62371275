"""A small language model for the tests of the verbs."""

import pytest

from tests.cli import language_folders
from tfbig.interop.loading import load


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return language_folders.write(tmp_path_factory.mktemp("models") / "llama")


@pytest.fixture(scope="session")
def loaded(folder):
    return load(folder)


@pytest.fixture
def traced(folder, loaded, monkeypatch):
    """The folder, of which the verbs get one model, so that it is traced once for all tests."""
    monkeypatch.setattr("tfbig.interop.loading.load", lambda path, dtype=None: loaded)
    return folder
