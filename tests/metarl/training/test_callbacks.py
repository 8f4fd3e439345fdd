"""Callbacks: when they are called, what they are given, and what they can do."""

from pathlib import Path
from typing import Any
from unittest import TestCase

import pytest
import torch

import metarl.training.loop
from metarl.agents.gradient.maml_trpo import MamlTrpo
from metarl.errors import InputError, RunError
from metarl.run.adaptation_curve import AdaptationCurve
from metarl.run.directory import RunDirectory, iteration_of
from metarl.training.callbacks import Callback, EarlyStopping, KeepBest, TimeLimit, Training
from metarl.training.train import resume, train
from tests.runs import contents, numbers, small


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


class Recorder(Callback):
    """Notes its calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int]] = []
        self.returns: list[float] = []

    def on_start(self, training: Training) -> None:
        self.calls.append(("start", training.iteration))

    def on_iteration(self, training: Training) -> None:
        self.calls.append(("iteration", training.iteration))
        assert training.row["iteration"] == training.iteration - 1

    def on_validation(self, training: Training, curve: AdaptationCurve) -> None:
        self.calls.append(("validation", training.iteration))
        assert training.validations[-1] == pytest.approx(curve.returns[:, -1].mean())
        self.returns = list(training.validations)

    def on_checkpoint(self, training: Training) -> None:
        self.calls.append(("checkpoint", training.iteration))
        assert training.checkpoints.latest == training.iteration

    def on_end(self, training: Training) -> None:
        self.calls.append(("end", training.iteration))


class StopAt(Callback):
    """Stops after some iterations."""

    def __init__(self, iteration: int) -> None:
        self.iteration = iteration

    def on_iteration(self, training: Training) -> None:
        if training.iteration == self.iteration:
            training.stop("enough")


def test_callbacks_are_called_in_the_course_of_a_run() -> None:
    recorder = Recorder()
    train(small("run", iterations=4, validate_every=2, checkpoint_every=3), callbacks=[recorder])
    assert recorder.calls == [
        ("start", 0),
        ("iteration", 1),
        ("iteration", 2),
        ("validation", 2),
        ("checkpoint", 2),
        ("iteration", 3),
        ("checkpoint", 3),
        ("iteration", 4),
        ("validation", 4),
        *([("checkpoint", 4)] if ("checkpoint", 4) in recorder.calls else []),  # if it is the best so far
        ("end", 4),
    ]


def test_a_stopped_run_is_resumed_to_the_same_numbers_and_knows_its_validations() -> None:
    whole, first, second = Recorder(), Recorder(), Recorder()
    train(small("whole", validate_every=1), callbacks=[whole])
    stopped = train(small("stopped", validate_every=1), callbacks=[StopAt(2), first])
    assert len(stopped.read_metrics()) == 2
    assert first.calls[-1] == ("end", 2)
    resume("stopped", callbacks=[second])
    assert second.calls[:2] == [("start", 2), ("iteration", 3)]
    assert numbers("stopped") == numbers("whole")
    assert second.returns == whole.returns


def test_what_is_logged_goes_to_the_tracker_with_the_iteration(monkeypatch: pytest.MonkeyPatch) -> None:
    class Log(Callback):
        def on_iteration(self, training: Training) -> None:
            if training.iteration == 2:
                training.log("own/number", 7.0)

    logged: list[dict[str, Any]] = []
    monkeypatch.setattr(metarl.training.loop.NoTracker, "log", lambda self, row: logged.append(row))
    directory = train(small("run", iterations=3), callbacks=[Log()])
    assert [row.get("own/number") for row in logged] == [None, 7.0, None]
    assert "own/number" not in directory.read_metrics()[1]


def validated(training: Any, *values: float) -> Training:
    """Return a run with validations of these returns."""
    training.validations, training.stop_reason = list(values), None
    return training  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("values", "min_gain", "stops"),
    [
        ((1.0, 0.5), 0.0, False),
        ((1.0, 0.5, 0.9), 0.0, True),
        ((1.0, 0.5, 1.1), 0.0, False),
        ((1.0, 0.5, 1.1), 0.2, True),
        ((1.0, 1.0, 1.0), 0.0, True),
        ((0.0, 1.0, 0.5), 0.0, False),
    ],
)
def test_early_stopping_waits_for_an_improvement(values: tuple[float, ...], min_gain: float, stops: bool) -> None:
    run = Training.__new__(Training)
    EarlyStopping(2, min_gain).on_validation(validated(run, *values), None)  # type: ignore[arg-type]
    assert (run.stop_reason is not None) == stops


def test_a_time_limit_stops_after_the_iteration_in_hand() -> None:
    directory = train(small("run"), callbacks=[TimeLimit(1e-9)])
    assert len(directory.read_metrics()) == 1
    assert directory.finished_iterations() is None


def test_the_best_checkpoints_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = iter([5.0, 1.0, 4.0, 3.0, 0.0, 0.0, 0.0, 0.0])
    monkeypatch.setattr(metarl.training.loop, "_score", lambda curve: next(scores))
    train(small("run", iterations=8, validate_every=1, checkpoint_every=1), callbacks=[KeepBest(3)])
    assert [iteration_of(path) for path in RunDirectory("run").checkpoint_files()] == [1, 3, 4, 6, 7, 8]


def test_what_is_no_callback_is_refused_before_anything_is_written() -> None:
    with pytest.raises(InputError, match="is not a callback; pass instances of subclasses"):
        train(small("run"), callbacks=[StopAt])  # type: ignore[list-item]
    assert not Path("run").exists()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: EarlyStopping(0), "patience must be at least 1, not 0"),
        (lambda: TimeLimit(-1.0), "hours must be positive, not -1.0"),
        (lambda: KeepBest(0), "count must be at least 1, not 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(make: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


def test_a_run_is_logged() -> None:
    with TestCase().assertLogs("metarl", "DEBUG") as logged:
        train(small("run", iterations=2, validate_every=2, checkpoint_every=2), callbacks=[StopAt(2)])
    found = [(record.levelname, record.getMessage().split(":")[0]) for record in logged.records]
    assert found[0] == ("INFO", "maml-trpo on bandit (k5)")
    assert found[1:] == [
        ("DEBUG", "iteration 1"),
        ("DEBUG", "iteration 2"),
        ("INFO", "iteration 2"),
        ("DEBUG", "iteration 2"),
        ("INFO", "ended after 2 iterations"),
    ]
    assert logged.records[-1].getMessage() == "ended after 2 iterations: enough"


@pytest.mark.parametrize("callback", [EarlyStopping(2), KeepBest(2)])
def test_callbacks_that_need_validations_say_so_before_anything_is_written(callback: Callback, tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=f"{type(callback).__name__} needs validations in training; set validate_every"
    ):
        train(small(tmp_path / "run"), callbacks=[callback])
    assert not (tmp_path / "run").exists()
    before = contents(train(small(tmp_path / "run", iterations=1)).path)
    with pytest.raises(InputError, match="set validate_every"):
        resume(tmp_path / "run", 2, callbacks=[callback])
    assert contents(tmp_path / "run") == before


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (None, r"maml-trpo\.update must return metrics by name, \{\} for none, not None"),
        ({"loss": torch.tensor(0.5)}, r"must return numbers, but loss is tensor\(0\.5000\); use \.item\(\)"),
    ],
)
def test_metrics_that_are_no_numbers_are_refused(
    found: Any, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MamlTrpo, "update", lambda *_: found)
    with pytest.raises(RunError, match=message):
        train(small(tmp_path / "run"))
