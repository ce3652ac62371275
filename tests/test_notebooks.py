"""Executes every notebook, cell by cell, and keeps the notebooks as they are."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tfbig.interop.known import KNOWN, path_of

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))


@pytest.mark.filterwarnings("default")  # of jupyter's own machinery; the cells have a process apart
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook(path, tmp_path):
    notebook = nbformat.read(path, as_version=4)
    for name in KNOWN:
        if any(f'load_known("{name}")' in cell.source for cell in notebook.cells):
            try:
                path_of(name)
            except ImportError as error:  # it names the line that installs the package
                pytest.skip(str(error))
    NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    ).execute()
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(code) >= 5
    imports = [
        line.split()[1].split(".")[0]
        for cell in code
        for line in cell.source.splitlines()
        if line.startswith(("import ", "from "))
    ]
    assert set(imports) <= {"tfbig", "keras", "numpy", "tensorflow", "matplotlib", "tempfile"}
    assert any("image/png" in output.get("data", {}) for cell in code for output in cell.outputs)
