"""The notebook is stored without outputs, and all of its cells run."""

import json

import pytest

from tests.shared import ROOT

NOTEBOOK = ROOT / "docs" / "notebook" / "first_steps.ipynb"


def test_it_is_stored_without_outputs_and_its_code_compiles():
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    codes = [cell for cell in cells if cell["cell_type"] == "code"]
    assert len(codes) > 5
    for cell in codes:
        assert (cell["outputs"], cell["execution_count"]) == ([], None), "clear the outputs"
        compile("".join(cell["source"]), cell["id"], "exec")


@pytest.mark.slow
def test_all_cells_run(tmp_path, monkeypatch):
    nbclient = pytest.importorskip("nbclient", reason="the extra dev brings it")
    nbformat = pytest.importorskip("nbformat", reason="the extra dev brings it")
    pytest.importorskip("ipykernel", reason="the extra dev brings it")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    folder = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources=folder
    ).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    pictures = [output for output in outputs if "image/png" in output.get("data", ())]
    printed = "".join(output.get("text", "") for output in outputs)
    assert len(pictures) == 3
    assert "oversample against none: " in printed
    assert printed.count(" predicted ") == 5
