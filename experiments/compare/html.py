"""The HTML page of a comparison: a single self-contained file with embedded figures."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, StrictUndefined

from metarl.storage.files import write_whole

TEMPLATE = Path(__file__).with_name("report.html")
TYPES = {".svg": "image/svg+xml", ".png": "image/png", ".gif": "image/gif"}


@dataclass(frozen=True)
class Cell:
    """The text of a table cell, lines of small print below it, and an optional number to sort by."""

    text: str
    below: Sequence[str] = ()
    value: float | None = None


@dataclass(frozen=True)
class Row:
    """A row of a table with its name, which may be highlighted and have a colour."""

    name: str
    cells: Sequence[Cell]
    color: str = ""
    marked: bool = False


@dataclass(frozen=True)
class Table:
    """A table; screen readers announce its name, and its first column has the names of the rows.

    Attributes:
        sortable: whether clicking a column header sorts by it.
        folded: whether it is initially collapsed.
        words: whether its cells contain text, which is aligned to the left.
    """

    name: str
    columns: Sequence[str]
    rows: Sequence[Row]
    sortable: bool = False
    folded: bool = False
    words: bool = False


@dataclass(frozen=True)
class Image:
    """An embedded picture: ``source`` is a data URI."""

    source: str
    alt: str
    caption: str


@dataclass(frozen=True)
class Section:
    """A section of the page with a heading; ``id`` is the anchor."""

    id: str
    title: str
    notes: Sequence[str] = ()
    pictures: Sequence[Image] = ()
    tables: Sequence[Table] = ()


@dataclass(frozen=True)
class Page:
    """The whole page: title, a paragraph with the protocol, the command that made it, and the sections."""

    title: str
    protocol: str
    command: str
    sections: Sequence[Section]


def embedded(path: Path, alt: str, caption: str) -> Image:
    """Return a picture file as an embedded image."""
    content = base64.b64encode(path.read_bytes()).decode()
    return Image(f"data:{TYPES[path.suffix]};base64,{content}", alt, caption)


def write_page(page: Page, path: Path) -> None:
    """Write the page; every text in it is escaped."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    text = environment.from_string(TEMPLATE.read_text()).render(vars(page))
    write_whole(path, lambda part: part.write_text(text, encoding="utf-8"))
