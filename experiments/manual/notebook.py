"""Executes the notebooks of the manual, and stores their outputs in them."""

from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

DOCS = Path(__file__).resolve().parents[2] / "docs"
SECONDS = 600


def executed(path: Path) -> NotebookNode:
    """Return a notebook with the outputs of its cells, run in an empty folder.

    Raises:
        nbclient.exceptions.CellExecutionError: if a cell raises.
    """
    notebook: NotebookNode = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    with TemporaryDirectory() as folder:
        NotebookClient(notebook, timeout=SECONDS, resources={"metadata": {"path": folder}}).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # when each cell ran, which differs every time
    return notebook


if __name__ == "__main__":
    for path in DOCS.glob("*.ipynb"):
        nbformat.write(executed(path), path)  # type: ignore[no-untyped-call]
