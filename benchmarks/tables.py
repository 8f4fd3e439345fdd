"""The tables of the manual that come from ``benchmarks/results``: written between their markers.

    python -m benchmarks.tables

A page has ``<!-- benchmark:NAME -->`` before what ``table`` of ``benchmarks/NAME.py`` returns, and
``<!-- /benchmark -->`` after it; a test compares it with the file.
"""

import re
from importlib import import_module
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"
MARKERS = re.compile(r"(<!-- benchmark:(\S+) -->\n).*?(<!-- /benchmark -->)", re.DOTALL)


def fill_page(page: str) -> str:
    """Return a page with the tables between its markers replaced."""

    def filled(found: re.Match[str]) -> str:
        table: str = import_module(f"benchmarks.{found[2]}").table()
        return f"{found[1]}\n{table}\n\n{found[3]}"

    return MARKERS.sub(filled, page)


def main() -> None:
    """Write the pages."""
    for path in DOCS.glob("*.md"):
        if (filled := fill_page(text := path.read_text())) != text:
            path.write_text(filled)
            print(path)


if __name__ == "__main__":
    main()
