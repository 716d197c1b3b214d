"""The tutorial runs as it is written, but for fewer steps on fewer images."""

import nbformat
import pytest
from nbclient import NotebookClient

import monai_ccnet

TUTORIAL = monai_ccnet.bundle_root() / "docs" / "tutorial.ipynb"


@pytest.fixture(scope="module")
def notebook():
    return nbformat.read(TUTORIAL, as_version=4)


def test_it_is_kept_without_outputs(notebook):
    nbformat.validate(notebook)
    assert not [cell for cell in notebook.cells if cell.get("outputs") or cell.get("execution_count")]


def test_it_runs_to_the_end(notebook, tmp_path):
    (settings,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    settings.source = "steps, every = 4, 16"
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 4
    printed = "".join(output.get("text", "") for output in outputs if output.output_type == "stream")
    assert "predicted: " in printed
    assert int(printed.split()[-2].replace(",", "")) <= 300_000  # bytes of the file
