"""demos/quick_demo.ipynb: no outputs are kept in it, and it runs from top to bottom."""

import ast
import json

import pytest
from readme import ROOT
from test_readme_commands import SMALL

NOTEBOOK = ROOT / "demos" / "quick_demo.ipynb"


def cells():
    return json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]


def test_the_notebook_has_code_and_no_outputs():
    code = [cell for cell in cells() if cell["cell_type"] == "code"]
    assert len(code) > 4
    for cell in code:
        assert cell["outputs"] == []
        assert cell["execution_count"] is None
        ast.parse("".join(cell["source"]))


@pytest.mark.slow
def test_the_notebook_runs(desk):
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(NOTEBOOK, as_version=4)
    given = [cell for cell in notebook.cells if "CHANGES = []" in cell.source]
    assert len(given) == 1
    given[0].source = given[0].source.replace("CHANGES = []", f"CHANGES = {SMALL}")
    NotebookClient(notebook, timeout=1800, kernel_name="python3", resources={"metadata": {"path": str(desk)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    shown = "\n".join(str(output) for output in outputs)
    assert "['compare', 'data', 'finetune', 'pretrain']" in shown
    assert "**" in shown
    assert "finetune What is this? -> " in shown.replace("Which thing", "What")
    assert "held-out scenes | finetune | shuffled" in shown
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 4
    assert not [output for output in outputs if output["output_type"] == "error"]
