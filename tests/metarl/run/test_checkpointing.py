"""Which checkpoints a run writes, keeps, resumes from and calls its best, whatever happens in between."""

import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import metarl.storage.files
from metarl.agents.gradient.maml_trpo import MamlTrpo
from metarl.errors import InputError, RunError
from metarl.evaluation.evaluate import evaluate, load_run
from metarl.run.config_file import config_hash
from metarl.run.directory import RunDirectory, iteration_of
from metarl.training.requeue import train_or_resume
from metarl.training.train import resume, train
from tests.runs import checkpoint_vector, contents, numbers, same, script_validation, small, tiny


class Killed(BaseException):
    """The process is gone."""


def kept(path: Path) -> list[int]:
    return [iteration_of(file) for file in RunDirectory(path).checkpoint_files()]


def kill_at(write: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """End the process, as far as one can, in place of moving the file number ``write`` to its place."""
    replacing, done = metarl.storage.files.os.replace, [0]

    def killed(source: Path, target: Path) -> None:
        done[0] += 1
        if done[0] > write:
            raise Killed
        replacing(source, target)

    monkeypatch.setattr(metarl.storage.files.os, "replace", killed)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an uninterrupted run that is validated after each iteration."""
    path = tmp_path_factory.mktemp("whole") / "run"
    train(small(path, "navigation-2d", horizon=5, validate_every=1, checkpoint_every=2))
    return path


def test_the_latest_three_and_the_best_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script_validation(monkeypatch, [-3.0, -1.0, -2.0, -2.0, -2.0, -2.0, -2.0])
    train(small(tmp_path / "run", iterations=7, validate_every=1, checkpoint_every=1))
    assert kept(tmp_path / "run") == [2, 5, 6, 7]


# config.json; checkpoints 0, 1 (a best), ..., in whatever places the best ones are; finished.json.
@pytest.mark.parametrize("write", range(7))
def test_a_run_killed_at_any_write_has_the_numbers_and_the_best_of_one_that_was_not(
    write: int, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small(tmp_path / "run", "navigation-2d", horizon=5, validate_every=1, checkpoint_every=2)
    with monkeypatch.context() as patch:
        kill_at(write, patch)
        with pytest.raises(Killed):
            train(config)
    directory = train_or_resume(config)
    assert numbers(directory.path) == numbers(whole)
    one, other = (RunDirectory(path).best_checkpoint() for path in (directory.path, whole))
    assert one is not None
    assert other is not None
    assert one.name == other.name
    assert same(*(RunDirectory(path.parents[1]).load_checkpoint(path)["learner"] for path in (one, other)))
    assert directory.finished_iterations() == 4


def test_what_a_finished_run_lacks_is_made(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "run")
    directory = RunDirectory(tmp_path / "run")
    directory.finished.unlink()
    directory.curve.unlink()
    before = numbers(directory.path)
    config = small(directory.path, "navigation-2d", horizon=5, validate_every=1, checkpoint_every=2)
    train_or_resume(config)
    assert directory.curve.exists()
    assert numbers(directory.path) == before
    all_files = contents(directory.path)
    train_or_resume(config)
    assert contents(directory.path) == all_files


def test_a_run_of_other_settings_is_not_resumed_in_its_place(whole: Path) -> None:
    config = small(whole, "navigation-2d", horizon=5, validate_every=1, checkpoint_every=2, seed=2)
    with pytest.raises(InputError, match="is another run: its seed is 1, not 2; choose another --out"):
        train_or_resume(config)


def test_settings_that_have_been_added_since_do_not_make_it_another_run(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "run")
    directory = RunDirectory(tmp_path / "run")
    content = directory.read_config()
    del content["settings"]["activation"]
    directory.write_config({**content, "config_hash": config_hash(content)})
    config = small(directory.path, "navigation-2d", horizon=5, validate_every=1, checkpoint_every=2)
    assert train_or_resume(config).finished_iterations() == 4


def test_minutes_call_for_checkpoints_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(small(tmp_path / "never", iterations=3, checkpoint_minutes=0))
    assert kept(tmp_path / "never") == [0, 3]
    train(small(tmp_path / "always", iterations=3, checkpoint_minutes=1e-9))
    assert kept(tmp_path / "always") == [1, 2, 3]


def test_a_checkpoint_that_is_not_finite_is_never_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    update, calls = MamlTrpo.update, [0]

    def diverging(self: MamlTrpo, rollouts: Any) -> dict[str, float]:
        metrics = update(self, rollouts)
        calls[0] += 1
        if calls[0] == 3:
            self.params = self.params.apply(lambda tensor: tensor * math.nan)
        return metrics

    monkeypatch.setattr(MamlTrpo, "update", diverging)
    with pytest.raises(
        RunError, match=r"is not finite after 3 iterations.* the checkpoint of iteration 2; evaluate it with metarl"
    ):
        train(small(tmp_path / "run", checkpoint_every=1))
    assert kept(tmp_path / "run") == [0, 1, 2]
    evaluate(tmp_path / "run", tasks=2)
    calls[0] = 9
    assert numbers(resume(tmp_path / "run").path) == numbers(train(small(tmp_path / "straight")).path)


def test_a_fault_that_comes_back_can_be_passed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shape: dict[str, Any] = {"family": "navigation-2d", "horizon": 5}
    straight = train(small(tmp_path / "straight", **shape))
    faulty = straight.read_metrics()[2]["return_before"]
    update = MamlTrpo.update

    def failing(self: MamlTrpo, rollouts: Any) -> dict[str, float]:
        if rollouts[0].episode_returns().mean().item() == faulty:
            raise RunError("the update is not finite")
        return update(self, rollouts)

    monkeypatch.setattr(MamlTrpo, "update", failing)
    for _ in range(2):
        with pytest.raises(RunError, match=r"iteration 2: .* add --redraw 2"):
            train_or_resume(small(tmp_path / "run", **shape))
    redrawn = resume(tmp_path / "run", redraw=[2])
    assert numbers(redrawn.path)[:2] == numbers(straight.path)[:2]
    assert redrawn.read_config()["run"]["redraw"] == [2]
    assert redrawn.finished_iterations() == 4


def lose_the_replay(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree(path / "replay")


def damage_an_older_checkpoint(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open(RunDirectory(path).checkpoint_files()[0], "ab") as stream:
        stream.write(b"x")


def mistype_the_mode(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "dryrun")


@pytest.mark.parametrize(
    ("harm", "complaint"),
    [
        (lose_the_replay, "is missing; restore it from a copy"),
        (damage_an_older_checkpoint, "is truncated or damaged"),
        (mistype_the_mode, "WANDB_MODE must be online, offline or disabled, not 'dryrun'"),
    ],
)
def test_a_refused_resume_leaves_a_finished_run_as_it_was(
    harm: Any, complaint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    train(tiny("pearl", tmp_path / "run", iterations=2, checkpoint_every=1, track="auto"))
    harm(tmp_path / "run", monkeypatch)
    before = contents(tmp_path / "run")
    with pytest.raises(InputError, match=complaint):
        resume(tmp_path / "run", iterations=3)
    assert contents(tmp_path / "run") == before


def test_a_run_that_goes_back_is_no_longer_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = small(tmp_path / "run", checkpoint_every=1)
    directory = train(config)
    before = numbers(directory.path)
    directory.checkpoint.unlink()  # as the message about a damaged one advises
    with monkeypatch.context() as patched:
        kill_at(1, patched)
        with pytest.raises(Killed):
            resume(directory.path)
    assert directory.finished_iterations() is None
    assert train_or_resume(config).finished_iterations() == 4
    assert numbers(directory.path) == before


def test_rows_after_a_checkpoint_that_is_the_last_one_are_dropped(tmp_path: Path) -> None:
    directory = train(small(tmp_path / "run", checkpoint_every=2))
    whole = numbers(directory.path)
    directory.checkpoint.unlink()
    assert resume(directory.path, iterations=2).finished_iterations() == 2
    rows = numbers(directory.path)
    assert [row["return_after"] for row in rows] == [row["return_after"] for row in whole[:2]]


def test_the_best_of_a_run_in_training_is_found(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = RunDirectory(whole)
    files = directory.checkpoint_files()
    listings = iter([[directory.checkpoints / "iteration-1", *files], files, files])
    monkeypatch.setattr(RunDirectory, "checkpoint_files", lambda _: next(listings))
    assert directory.best_checkpoint() in files


def test_the_checkpoint_of_an_iteration_is_used_by_its_number(whole: Path) -> None:
    assert load_run(whole, checkpoint=kept(whole)[0])[2] == kept(whole)[0]
    for wrong in (99, "bset", "iteration-2"):
        with pytest.raises(
            InputError, match=f"has no checkpoint {wrong!r}; it has latest, best, and those of the iter"
        ):
            evaluate(whole, tasks=2, checkpoint=wrong)  # type: ignore[arg-type]


def test_a_checkpoint_of_another_run_is_refused(whole: Path, tmp_path: Path) -> None:
    other = train(small(tmp_path / "other", "navigation-2d", horizon=5, validate_every=1, checkpoint_every=2))
    shutil.copy(RunDirectory(whole).checkpoint, other.checkpoint)
    with pytest.raises(InputError, match="is a checkpoint of another run"):
        load_run(other.path)


@pytest.mark.parametrize(("name", "value"), [("seed", 2), ("validate_every", 2), ("tasks_per_batch", 3)])
def test_a_changed_setting_is_refused(name: str, value: int, whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "run")
    directory = RunDirectory(tmp_path / "run")
    content = directory.read_config()
    directory.write_config({**content, "run": {**content["run"], name: value}})
    with pytest.raises(InputError, match=r"config\.json has been changed since the run was started"):
        load_run(directory.path)


def test_a_copy_gets_a_tracking_id_of_its_own_and_the_original_keeps_its(tmp_path: Path) -> None:
    directory = train(small(tmp_path / "run", iterations=1))
    shutil.copytree(directory.path, tmp_path / "copy")
    own = directory.read_config()["tracking_id"]
    copy = resume(tmp_path / "copy", iterations=2).read_config()["tracking_id"]
    assert copy.startswith(f"{own}-copy-")
    assert resume(tmp_path / "copy", iterations=3).read_config()["tracking_id"] == copy
    assert resume(directory.path, iterations=3).read_config()["tracking_id"] == own
    assert torch.equal(checkpoint_vector(directory.path), checkpoint_vector(tmp_path / "copy"))


def test_a_run_that_was_moved_keeps_its_tracking_id(tmp_path: Path) -> None:
    directory = train(small(tmp_path / "run", iterations=1))
    own = directory.read_config()["tracking_id"]
    directory.path.rename(tmp_path / "moved")
    assert resume(tmp_path / "moved", iterations=2).read_config()["tracking_id"] == own
