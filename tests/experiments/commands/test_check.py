"""``metarl check``: it finds whatever is wrong in a run directory, and nothing in one that is right."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from metarl.experiments.commands.main import main
from metarl.run.directory import RunDirectory
from metarl.training.train import train
from tests.runs import contents, tiny, train_words


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run that was evaluated, which these tests copy."""
    path = tmp_path_factory.mktemp("check") / "run"
    assert main(train_words("navigation-2d", "--iterations", 2, "--horizon", 5, out=path)) == 0
    assert main(["evaluate", str(path), "--tasks", "3", "--steps", "1"]) == 0
    return path


def test_a_run_that_is_whole_is_right(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(trained)
    assert main(["check", str(trained)]) == 0
    said = capsys.readouterr().out
    assert "WRONG" not in said
    assert "all 6 returns reproduce" in said
    assert {line.split()[1].rstrip(":") for line in said.splitlines()} == set(before) - {"finished.json"}
    assert contents(trained) == before


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def change_a_return(path: Path) -> None:
    record = json.loads(path.read_text())
    record["returns"][0][0] += 1e-6
    path.write_text(json.dumps(record))


def change_another_entry(path: Path) -> None:
    record = json.loads(path.read_text())
    record["env_steps"][1] += 1
    path.write_text(json.dumps(record))


def change_a_digit(path: Path) -> None:
    text = path.read_text()
    at = next(place for place in range(len(text) - 20, 0, -1) if text[place].isdigit())
    path.write_text(text[:at] + str((int(text[at]) + 1) % 10) + text[at + 1 :])


def drop_a_row(path: Path) -> None:
    path.write_text("\n".join(path.read_text().splitlines()[:-1]) + "\n")


@pytest.mark.parametrize(
    ("file", "change", "complaint"),
    [
        ("checkpoints/iteration-2", flip, "its SHA-256 is not the one written in it; remove it"),
        ("checkpoints/iteration-0", flip, "its SHA-256 is not the one written in it"),
        ("evaluation.json", change_a_return, "the evaluation does not reproduce: mean return"),
        ("evaluation.json", change_another_entry, "the evaluation does not reproduce: env_steps differ"),
        ("metrics.csv", drop_a_row, "has 1 of the 2 iterations in iteration-2"),
        ("metrics.csv", change_a_digit, "has changed since the checkpoint of iteration 2 was written"),
        ("adaptation_curve.png", flip, "it is not a complete image"),
        ("adaptation_curve.png", lambda path: path.write_bytes(b"PNG"), "it is not a complete image"),
    ],
)
def test_what_is_wrong_is_named(
    file: str,
    change: Callable[[Path], object],
    complaint: str,
    trained: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(trained, tmp_path / "run")
    change(tmp_path / "run" / file)
    assert main(["check", str(tmp_path / "run")]) == 1
    said = capsys.readouterr()
    (line,) = [line for line in said.out.splitlines() if line.split()[1] == f"{file}:"]
    assert line.startswith("WRONG")
    assert complaint in line
    assert said.err.startswith(f"metarl: {tmp_path / 'run'}: ")
    assert RunDirectory(tmp_path / "run").config.exists()


def test_a_lost_replay_buffer_is_wrong_unless_the_run_was_published_without(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(tiny("pearl", tmp_path / "run", iterations=1))
    assert main(["check", str(tmp_path / "run")]) == 0
    assert "replay: 1 files, those of the latest checkpoint whole" in capsys.readouterr().out
    shutil.rmtree(tmp_path / "run" / "replay")
    assert main(["check", str(tmp_path / "run")]) == 1
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("WRONG")]
    assert "is missing; restore it from a copy" in line
    (tmp_path / "run" / "contents.json").write_text("{}")
    assert main(["check", str(tmp_path / "run")]) == 0
    assert "not published: the run can be evaluated, but not resumed" in capsys.readouterr().out
