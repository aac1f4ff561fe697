"""The notebooks run from their first cell to their last, in a folder of their own, and lie in git without outputs."""

import json
from pathlib import Path

import nbformat
import pytest
from adapters_small import make_base
from nbclient import NotebookClient

from desk.config import ROOT

FOLDER = ROOT / "docs" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_lies_in_git_without_outputs_or_paths_of_a_machine(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.outputs == [] and cell.execution_count is None, cell.id
        assert not any(mark in cell.source for mark in ("/home/", "/root/", "/tmp/", "C:\\")), cell.id


def test_the_first_adapter_is_trained_served_and_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a base of two layers, which learns in seconds: every step is the reader's."""
    make_base(tmp_path / "base", vocab_size=560)
    for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "jupyter"))
    notebook = nbformat.read(FOLDER / "first_adapter.ipynb", as_version=4)
    place = next(n for n, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", ()))
    mine = f"FOLDER = Path({str(tmp_path / 'mine')!r})\nBASE = {str(tmp_path / 'base')!r}\nTHREADS = 1"
    notebook.cells.insert(place + 1, nbformat.v4.new_code_cell(mine))
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(FOLDER)}}).execute()
    said = [
        "".join(output.get("text", "") for output in cell.outputs)
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]
    assert any("72  rows to train on, 12 different answers" in text for text in said)
    assert any("adapter   rooms v1 (chat): Screens, calls, bookings and comfort" in text for text in said)
    assert any(text.startswith("['switchboard-") and "'rooms'" in text for text in said)
    asked = next(text for text in said if text.startswith("asked:"))
    assert asked.splitlines()[1].removeprefix("answer:").strip()
    assert asked.splitlines()[2] in {"right", "another taught answer", "none that was taught"}
    shown = [output for cell in notebook.cells for output in cell.get("outputs", []) if "data" in output]
    assert any("image/png" in output.data for output in shown)
    assert any("# Meeting rooms, version 1" in output.data.get("text/markdown", "") for output in shown)
    trained = tmp_path / "mine" / "state" / "desk" / "adapters" / "rooms" / "manifest.json"
    assert json.loads(trained.read_text())["settings"]["epochs"] == 60
