import re

import nbformat
import pytest
from nbformat import NotebookNode

from metarl.experiments.manual.notebook import DOCS, executed


def printed(notebook: NotebookNode) -> list[str]:
    """Return what the cells of a notebook print, with every number replaced by #."""
    texts = [output["text"] for cell in notebook.cells for output in cell.get("outputs", ()) if "text" in output]
    return [re.sub(r"-?[\d.]+", "#", text) for text in texts]


@pytest.mark.manual
def test_the_tutorial_runs_and_prints_what_is_stored() -> None:
    stored = nbformat.read(DOCS / "tutorial.ipynb", as_version=4)
    again = executed(DOCS / "tutorial.ipynb")
    assert printed(again) == printed(stored)
    pictures = [output for cell in again.cells for output in cell.get("outputs", ()) if "data" in output]
    assert [sorted(each["data"]) for each in pictures] == [["image/png", "text/plain"]] * 2
