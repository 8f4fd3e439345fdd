"""What commands print: the complaint of a refused one, and its help."""

import ast
import dataclasses
import inspect
import textwrap

import pytest

from metarl.experiments.commands.main import main


def complaint(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Return the one line that a refused command writes."""
    assert main(words) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("metarl: ")
    assert captured.err.count("\n") == 1
    return captured.err


def help_of(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Return what --help says, without the boxes and the white space that wrap it."""
    with pytest.raises(SystemExit) as ended:
        main([*words, "--help"])
    assert ended.value.code == 0
    return "".join(capsys.readouterr().out.replace("│", " ").split())


def sentences(config: type) -> dict[str, str]:
    """Return the sentence under each field of a dataclass, its own or inherited."""
    found = {}
    for part in (each for each in reversed(config.__mro__) if dataclasses.is_dataclass(each)):
        (body,) = ast.parse(textwrap.dedent(inspect.getsource(part))).body
        assert isinstance(body, ast.ClassDef)
        for field, text in zip(body.body, body.body[1:], strict=False):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                assert isinstance(text, ast.Expr), f"{field.target.id} has no sentence"
                assert isinstance(text.value, ast.Constant)
                found[field.target.id] = str(text.value.value)
    return found
