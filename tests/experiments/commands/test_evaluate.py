import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import pytest

from metarl.experiments.commands.evaluate import EvaluateOptions
from metarl.experiments.commands.main import main
from metarl.run.directory import RunDirectory
from metarl.training.train import train
from tests.experiments.messages import complaint, help_of, sentences
from tests.runs import small, train_words


@pytest.mark.parametrize("options", ["--tasks 0", "--tasks -1", "--steps -1", "--episodes 0", "--track sometimes"])
def test_an_evaluation_that_makes_no_sense_is_refused(
    options: str, run: str, capsys: pytest.CaptureFixture[str]
) -> None:
    complaint(["evaluate", run, *options.split()], capsys)


def test_a_refused_evaluation_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(train_words("bandit", "--iterations", 1, out="run"))
    capsys.readouterr()
    complaint(["evaluate", "run", "--tasks", "2", "--track", "sometimes"], capsys)
    assert not (tmp_path / "run" / "evaluation.json").exists()


def test_help_explains_every_option_of_evaluate(capsys: pytest.CaptureFixture[str]) -> None:
    shown, explained = help_of(["evaluate"], capsys), sentences(EvaluateOptions)
    for name in (field.name for field in dataclasses.fields(EvaluateOptions) if field.name != "run"):
        assert f"--{name}" in shown
        assert "".join(explained[name].split()) in shown, name


def evaluate(run: str, *options: str) -> dict[str, Any]:
    assert main(["evaluate", run, *options]) == 0
    content: dict[str, Any] = json.loads(RunDirectory(run).evaluation.read_text())
    return content


def test_an_evaluation_is_a_table(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    evaluate(run, "--tasks", "4", "--steps", "2")
    shown = capsys.readouterr().out
    for row in ("before adaptation", "after step 1", "after step 2", "difference", "95 % interval over tasks"):
        assert row in shown
    assert "4 test tasks; 3 episodes per step, actions sampled" in shown


def test_an_evaluation_is_a_file(run: str) -> None:
    content = evaluate(run, "--tasks", "4", "--steps", "2")
    assert (content["family"], content["preset"], content["iteration"]) == ("bandit", "k5", 2)
    assert content["split_hash"] == RunDirectory(run).read_config()["split_hash"]
    assert [sorted(task) for task in content["tasks"]] == [["probabilities"]] * 4
    assert [len(row) for row in content["returns"]] == [3] * 4


def test_the_table_shows_the_files_numbers(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    returns = evaluate(run, "--tasks", "4", "--steps", "1")["returns"]
    (before,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("before adaptation")]
    assert f" {sum(row[0] for row in returns) / 4:.2f} " in before


def test_an_evaluation_with_the_same_seed_writes_the_same_file(run: str) -> None:
    assert evaluate(run, "--tasks", "3", "--steps", "1") == evaluate(run, "--tasks", "3", "--steps", "1")


def test_an_evaluation_leaves_checkpoint_config_and_metrics_alone(run: str) -> None:
    kept = ("checkpoints/iteration-2", "config.json", "metrics.csv")
    before = [(Path(run) / name).read_bytes() for name in kept]
    evaluate(run, "--tasks", "3", "--steps", "1")
    assert [(Path(run) / name).read_bytes() for name in kept] == before


def test_an_evaluation_draws_its_curve(run: str) -> None:
    RunDirectory(run).curve.unlink(missing_ok=True)
    evaluate(run, "--tasks", "3", "--steps", "1")
    assert RunDirectory(run).curve.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_it_is_said_when_a_family_has_fewer_tasks(capsys: pytest.CaptureFixture[str]) -> None:
    main(train_words("gridnavi", "--iterations", 1, "--horizon", 5, out="run"))
    evaluate("run", "--tasks", "40", "--steps", "1")
    # 20 % of 21 goals
    assert "4 test tasks, all that there are" in capsys.readouterr().out


def test_an_evaluation_on_other_tasks_is_kept_beside_that_on_test_tasks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = train(small(tmp_path / "run", "navigation-2d", horizon=3))
    assert main(["evaluate", str(directory.path), "--tasks", "3", "--steps", "1"]) == 0
    before = directory.evaluation.read_bytes()
    capsys.readouterr()
    words = ["--tasks", "ood", "--steps", "1", "--deterministic"]
    assert main(["evaluate", str(directory.path), *words]) == 0
    said = capsys.readouterr().out
    assert "40 tasks outside the distribution; 3 episodes per step, the policy's mode" in said
    assert "evaluation-ood.json" in said
    assert directory.evaluation.read_bytes() == before
    assert json.loads((directory.path / "evaluation-ood.json").read_text())["part"] == "ood"


def test_tasks_that_a_family_lacks_are_refused_in_one_line(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", run, "--tasks", "ood"]) == 2
    assert capsys.readouterr().err == (
        "metarl: bandit has no out-of-distribution tasks (ood); use those of train, validation or test\n"
    )


def test_of_a_run_that_is_only_read_the_table_is_shown_and_what_was_not_written(
    run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = os.replace

    def read_only(source: Path, target: Path) -> None:
        if Path(target).is_relative_to(run):
            raise OSError(30, "Read-only file system")
        replace(source, target)

    monkeypatch.setattr(os, "replace", read_only)
    assert main(["evaluate", run, "--tasks", "3", "--steps", "1"]) == 1
    said = capsys.readouterr()
    assert "before adaptation" in said.out
    assert said.err == (
        f"metarl: the evaluation was not written: {run}/evaluation.json: Read-only file system; choose another folder "
        "with --out\n"
    )
    assert main(["evaluate", run, "--tasks", "3", "--steps", "1", "--out", "elsewhere"]) == 0
    assert sorted(path.name for path in (tmp_path / "elsewhere").iterdir()) == [
        "adaptation_curve.png", "evaluation.json"]  # fmt: skip
