"""Statements for many rows, each a single call of the database's driver.

A call for each row would give up the interpreter's lock with every row, and have to win it back from the event loop.
"""

from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import ClauseElement, Table, bindparam, column, delete, insert, update, values

# The statement for a number of rows; its parameters are ``name_0``, ``name_1`` and so on, row by row.
Statement = Callable[[int], ClauseElement]
# A statement with the values of one row by name; those that are not given are NULL.
Write = tuple[Statement, Mapping[str, Any]]


def add(table: Table) -> Statement:
    """Return the statement that adds rows."""
    names = [each.name for each in table.columns]
    return lambda rows: insert(table).values(
        [{name: bindparam(f"{name}_{row}") for name in names} for row in range(rows)]
    )


def change(table: Table, *names: str) -> Statement:
    """Return the statement that gives some columns of rows new values; rows are found by their primary key."""
    keys = [each.name for each in table.primary_key]
    typed = [column(name, table.c[name].type) for name in (*keys, *names)]

    def statement(rows: int) -> ClauseElement:
        given = [tuple(bindparam(f"{each.name}_{row}", type_=each.type) for each in typed) for row in range(rows)]
        new = values(*typed, name="new").data(given).cte("new")
        found = [table.c[key] == new.c[key] for key in keys]
        return update(table).where(*found).values({name: new.c[name] for name in names})

    return statement


def remove(table: Table, name: str) -> Statement:
    """Return the statement that deletes all rows with one of some values in a column."""
    return lambda rows: delete(table).where(table.c[name].in_([bindparam(f"{name}_{row}") for row in range(rows)]))
