"""metrics.csv: one row of numbers for each iteration, checked whenever it is read.

Rows are appended during training, so the last one may be incomplete if the process was killed; readers skip it.
Anything else that is not a table of numbers with the iterations 0, 1, 2, ... is refused.
"""

import csv
import hashlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from metarl.errors import InputError

# Values are int, float, or None.
MetricsRow = dict[str, Any]
# Columns that count things; all others are real numbers.
COUNTED = ("iteration", "env_steps")


def read_metrics(path: Path) -> list[MetricsRow]:
    """Return the rows of a metrics.csv, which ``pandas.DataFrame`` accepts.

    ``iteration`` and ``env_steps`` are integers, all others floats, or None if not measured. A missing file has no
    rows.

    Raises:
        InputError: naming the line, if the file is not a table of numbers, or an iteration is missing.
    """
    names, *rows = _lines(path) or [[]]
    if rows and ("iteration" not in names or len(set(names)) < len(names)):
        raise _refusal(path, "its header lacks the column iteration, or names a column twice")
    return [_parse(path, names, row, index) for index, row in enumerate(rows)]


def write_rows(path: Path, names: Sequence[str], rows: Sequence[Mapping[str, float | None]]) -> None:
    """Write a complete metrics.csv; columns missing from a row stay empty."""
    with open(path, "w", newline="") as stream:
        writer = csv.DictWriter(stream, names)
        writer.writeheader()
        writer.writerows(rows)


def append_row(path: Path, row: Mapping[str, float | None], replace: Callable[..., None]) -> None:
    """Append a row to a metrics.csv; None becomes empty, and new columns are empty in earlier rows.

    Args:
        path: path of the file, which need not exist yet.
        row: values by column.
        replace: writes a file atomically (``run_directory.write_whole``), used if there are new columns.
    """
    names = column_names(path)
    if new := [name for name in row if name not in names]:
        names, rows = names + new, read_metrics(path)
        replace(path, lambda part: write_rows(part, names, rows))
    with open(path, "a", newline="") as stream:
        csv.DictWriter(stream, names).writerow(row)


def digest(rows: Sequence[MetricsRow], forget: str | None = None) -> str:
    """Return a hash of rows that does not change when a column is added later that is empty in them.

    Args:
        rows: of a metrics.csv.
        forget: prefix of the columns that are left out of the last row.
    """
    said = [{name: value for name, value in row.items() if value is not None} for row in rows]
    if said and forget:
        said[-1] = {name: value for name, value in said[-1].items() if not name.startswith(forget)}
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:16]


def column_names(path: Path) -> list[str]:
    """Return the columns of a metrics.csv; none if the file does not exist."""
    return (_lines(path) or [[]])[0]


def _lines(path: Path) -> list[list[str]]:
    """Return the cells of each complete line, including the header."""
    if not path.exists():
        return []
    try:
        text = path.read_bytes().decode()
        lines = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise _refusal(path, f"it is not text in columns ({error})") from None
    # A last line without a line break was being written when the process was killed.
    return lines if text.endswith("\n") else lines[:-1]


def _parse(path: Path, names: list[str], cells: list[str], index: int) -> MetricsRow:
    line = index + 2
    if len(cells) != len(names):
        raise _refusal(path, f"line {line} has {len(cells)} values for {len(names)} columns")
    row: MetricsRow = {}
    for name, cell in zip(names, cells, strict=True):
        try:
            row[name] = (int(cell) if name in COUNTED else float(cell)) if cell else None
        except ValueError:
            raise _refusal(path, f"line {line} has {cell[:40]!r} for {name}, which is not a number") from None
    if row["iteration"] != index:
        raise _refusal(path, f"line {line} is of iteration {row['iteration']}, where iteration {index} belongs")
    return row


def _refusal(path: Path, what: str) -> InputError:
    return InputError(f"{path} is not the file that this run wrote: {what}; restore it, or start a new run")
