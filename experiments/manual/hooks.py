"""MkDocs hooks: blocks that name code become that code, and notebooks become pages.

A fenced block ``source`` holds a file and a name in it per line; the page shows the code as it is in the repository,
without its docstring. MkDocs loads this file by its path.
"""

import ast
import json
import re
from functools import cache
from pathlib import Path
from textwrap import dedent
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
SOURCE = re.compile(r"^```source\n(.*?)^```", re.MULTILINE | re.DOTALL)


def source(file: str, name: str) -> str:
    """Return the code of a function, method or class, without docstring and decorators.

    Args:
        file: path from the root of the repository.
        name: such as ``inner_step`` or ``MamlTrpo.curvature``.

    Raises:
        LookupError: if the file does not define the name.
    """
    text = (ROOT / file).read_text()
    node: ast.AST = _tree(file)
    for part in name.split("."):
        node = next((each for each in ast.iter_child_nodes(node) if getattr(each, "name", None) == part), ast.Pass())
        if isinstance(node, ast.Pass):
            raise LookupError(f"{file} does not define {name}; mend the block source that names it")
    assert isinstance(node, ast.FunctionDef | ast.ClassDef)
    lines = text.splitlines()
    shown = lines[node.lineno - 1 : node.end_lineno]
    if ast.get_docstring(node) is not None:
        first, last = node.body[0].lineno, node.body[0].end_lineno
        assert last is not None
        shown = lines[node.lineno - 1 : first - 1] + lines[last : node.end_lineno]
    return dedent("\n".join(shown))


@cache
def _tree(file: str) -> ast.Module:
    return ast.parse((ROOT / file).read_text())


def _code(block: re.Match[str]) -> str:
    """Return the fenced Python blocks that take the place of a block ``source``."""
    named = [line.split() for line in block[1].splitlines()]
    return "\n\n".join(f'```python title="{file}: {name}"\n{source(file, name)}\n```' for file, name in named)


def notebook(text: str) -> str:
    """Return a Jupyter notebook as Markdown: its texts, its code, and the outputs stored in it.

    The metadata ``alt`` of a cell describes the picture that it draws.
    """
    parts = []
    for cell in json.loads(text)["cells"]:
        content = "".join(cell["source"])
        parts.append(content if cell["cell_type"] == "markdown" else f"```python\n{content}\n```")
        parts += [_output(each, cell["metadata"]) for each in cell.get("outputs", ())]
    return "\n\n".join(parts) + "\n"


def _output(output: dict[str, Any], metadata: dict[str, str]) -> str:
    if output["output_type"] == "stream":
        return f"```text\n{''.join(output['text']).rstrip()}\n```"
    picture = "".join(output["data"]["image/png"]).strip()
    return f"![{metadata['alt']}](data:image/png;base64,{picture})"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page for each notebook, which can also be downloaded."""
    for file in list(files):
        if file.src_uri.endswith(".ipynb"):
            name = file.src_uri.replace(".ipynb", ".md")
            files.append(File.generated(config, name, content=notebook(file.content_string)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Replace what names code by that code."""
    return SOURCE.sub(_code, markdown)
