import json
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tensordict import TensorDict
from wandb.errors import CommError
from wandb.sdk.lib.service.service_connection import WandbApiFailedError

from metarl.errors import InputError
from metarl.evaluation.evaluate import evaluate
from metarl.evaluation.figures import draw_adaptation_curve
from metarl.experiments.commands.main import main
from metarl.learning.learner import LEARNERS
from metarl.run.adaptation_curve import AdaptationCurve
from metarl.run.config import RunConfig, TrainConfig
from metarl.run.directory import RunDirectory
from metarl.run.labels import RunLabels
from metarl.run.metrics import METRICS
from metarl.tracking.tracker import NoTracker, flat_config
from metarl.tracking.tracking import make_tracker, where_tracked
from metarl.tracking.wandb_files import offline_run, records
from metarl.training.callbacks import Callback, Training
from metarl.training.train import resume, train
from tests.forked import Child, train_and_show_packages
from tests.runs import numbers, script_validation, small, train_words


@pytest.fixture(autouse=True)
def _no_user_is_logged_in(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    for name in ("WANDB_API_KEY", "WANDB_MODE", "NETRC", "WANDB_SWEEP_ID", "WANDB_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path_factory.mktemp("home")))


def run_file(directory: Path) -> Path:
    folder = offline_run(directory)
    assert folder is not None
    (found,) = folder.glob("*.wandb")
    return found


class Recorded:
    """The content of the run file of a run directory."""

    def __init__(self, directory: Path) -> None:
        self.file = run_file(directory)
        self.all = list(records(self.file))

    def of(self, kind: str) -> list[Any]:
        return [getattr(record, kind) for record in self.all if record.WhichOneof("record_type") == kind]

    def history(self) -> list[dict[str, Any]]:
        return [
            {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in row.item}
            for row in self.of("history")
        ]

    def config(self) -> dict[str, Any]:
        (run,) = self.of("run")
        items = [*run.config.update, *(item for config in self.of("config") for item in config.update)]
        return {item.key: json.loads(item.value_json) for item in items}

    def axes(self) -> dict[str, str]:
        return {metric.name or metric.glob_name: metric.step_metric for metric in self.of("metric")}

    def summary(self) -> dict[str, Any]:
        items = [item for summary in self.of("summary") for item in summary.update]
        return {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in items}

    def artifacts(self, kind: str) -> list[Any]:
        return [artifact for artifact in self.of("artifact") if artifact.type == kind]

    def media(self, path: str) -> Path:
        return self.file.parent / "files" / path


class Speaking(Callback):
    def on_iteration(self, training: Training) -> None:
        print(f"iteration {training.iteration} is done")


@pytest.fixture(scope="module")
def tracked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Recorded]:
    """Return a real offline run, and its run file, read back."""
    path = tmp_path_factory.mktemp("tracking") / "run"
    labels = RunLabels(project="robots", entity="us", tags=("first", "tiny"), notes="a test")
    train(
        small(path, "navigation-2d", horizon=5, iterations=2, track="offline", seed=3, labels=labels),
        callbacks=[Speaking()],
    )
    return path, Recorded(path)


@pytest.fixture(scope="module")
def peaked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Recorded]:
    """Return an offline run whose second of three iterations did best on validation tasks, and its run file."""
    path = tmp_path_factory.mktemp("tracking") / "run"
    settings: dict[str, Any] = {"validate_every": 1, "histogram_every": 2}
    with pytest.MonkeyPatch.context() as patch:
        script_validation(patch, [-3.0, -1.0, -2.0])
        train(small(path, "navigation-2d", horizon=5, iterations=3, track="offline", **settings))
    return path, Recorded(path)


@pytest.fixture(scope="module")
def evaluated(peaked: tuple[Path, Recorded]) -> tuple[dict[str, Any], Recorded]:
    """Return what an evaluation of that run's best checkpoint wrote, and its own run file; the run has a video."""
    Image.new("RGB", (8, 8)).save(peaked[0] / "adaptation.gif")
    words = ["--checkpoint", "best", "--tasks", "4", "--steps", "2", "--seed", "5", "--track", "offline"]
    assert main(["evaluate", str(peaked[0]), *words]) == 0
    return json.loads((peaked[0] / "evaluation.json").read_text()), Recorded(peaked[0])


def test_the_run_file_holds_the_resolved_config(tracked: tuple[Path, Recorded]) -> None:
    config = tracked[1].config()
    written = flat_config(json.loads((tracked[0] / "config.json").read_text()))
    assert {key: config[key] for key in written} == written
    # One entry a setting, by the name that it has on the command line.
    assert {"learner", "tasks_per_batch", "inner_lr", "trust_region.max_kl", "versions.torch"} <= set(written)


def test_what_the_run_printed_is_its_log(tracked: tuple[Path, Recorded]) -> None:
    assert tracked[1].media("output.log").read_text() == "iteration 1 is done\niteration 2 is done\n"


def test_histograms_are_logged_at_the_iterations_that_are_asked_for(peaked: tuple[Path, Recorded]) -> None:
    (row,) = (row for row in peaked[1].history() if "parameters/weight_0/_type" in row)
    assert row["iteration"] == 1
    shown = {name.split("/")[1] for name in row if name.startswith("parameters/")}
    assert shown == set(RunDirectory(peaked[0]).load_checkpoint()["learner"]["params"])


def test_it_holds_what_openrlbenchmark_asks_for(tracked: tuple[Path, Recorded]) -> None:
    config = tracked[1].config()
    assert (config["env_id"], config["exp_name"], config["seed"]) == ("metarl/Navigation2D-v0", "maml-trpo", 3)
    rows = [row for row in tracked[1].history() if "charts/episodic_return" in row]
    assert [(row["global_step"], row["charts/episodic_return"]) for row in rows] == [
        (float(row["env_steps"]), float(row["return_after"])) for row in numbers(tracked[0])
    ]


def test_it_holds_group_and_job_type(tracked: tuple[Path, Recorded]) -> None:
    (run,) = tracked[1].of("run")
    assert (run.run_group, run.job_type) == ("maml-trpo-navigation-2d-maml", "train")


def test_it_holds_what_the_user_says_about_it(tracked: tuple[Path, Recorded], peaked: tuple[Path, Recorded]) -> None:
    (run,) = tracked[1].of("run")
    assert (run.project, run.entity, list(run.tags), run.notes) == ("robots", "us", ["first", "tiny"], "a test")
    (run,) = peaked[1].of("run")
    assert (run.project, list(run.tags), run.notes) == ("metarl", [], "")


def test_every_key_is_one_that_the_manual_explains(
    peaked: tuple[Path, Recorded], evaluated: tuple[dict[str, Any], Recorded]
) -> None:
    explained = {*METRICS, *LEARNERS["maml-trpo"].metrics, "videos/adaptation"}
    for recorded in (peaked[1], evaluated[1]):
        for row in recorded.history():
            media = {key.rsplit("/", 1)[0] for key in row if key.endswith("/_type")}
            plain = {key for key in row if not key.startswith("_") and key.rsplit("/", 1)[0] not in media}
            assert {name for name in plain | media if not name.startswith("parameters/")} <= explained


def test_a_learner_that_is_there_to_be_compared_with_is_a_baseline(tmp_path: Path) -> None:
    settings = {"iterations": 1, "tasks_per_batch": 2, "episodes_per_task": 2, "track": "offline"}
    for name, job_type in {"random": "baseline", "ppo": "baseline", "reptile": "train"}.items():
        train(TrainConfig(name, "bandit", RunConfig(**settings, out=str(tmp_path / name))))
        (run,) = Recorded(tmp_path / name).of("run")
        assert run.job_type == job_type


def test_it_has_the_id_of_the_run(tracked: tuple[Path, Recorded]) -> None:
    assert tracked[1].of("run")[0].run_id == tracked[1].config()["tracking_id"]


def test_it_holds_every_iteration(tracked: tuple[Path, Recorded]) -> None:
    rows = [row for row in tracked[1].history() if "return_before" in row]
    names = ("iteration", "env_steps", "return_before", "return_after", "gain")
    assert [{name: float(row[name]) for name in names} for row in rows] == [
        {name: float(row[name]) for name in names} for row in numbers(tracked[0])
    ]


def test_it_holds_the_adaptation_curve(tracked: tuple[Path, Recorded]) -> None:
    rows = [row for row in tracked[1].history() if "adaptation/return" in row]
    assert [row["adaptation_step"] for row in rows] == [0, 1]
    # Three episodes of five steps, but for those that reach the goal.
    assert [row["adaptation/env_steps"] for row in rows] == [0, pytest.approx(15, abs=0.2)]


def test_returns_are_logged_against_env_steps_and_the_rest_against_iterations(tracked: tuple[Path, Recorded]) -> None:
    axes = tracked[1].axes()
    assert {axes[name] for name in ("return_before", "return_after", "gain", "charts/episodic_return")} == {"env_steps"}
    assert {axes[f"validation/{name}"] for name in ("return_before", "return_after", "gain")} == {"env_steps"}
    assert {axes[f"adaptation/{name}"] for name in ("return", "success", "env_steps")} == {"adaptation_step"}
    assert axes["*"] == "iteration"


def test_the_curve_is_an_artifact_and_a_picture(tracked: tuple[Path, Recorded]) -> None:
    (artifact,) = tracked[1].artifacts("curve")
    assert [entry.path for entry in artifact.manifest.contents] == ["adaptation_curve.png"]
    (path,) = (row["adaptation_curve/path"] for row in tracked[1].history() if "adaptation_curve/path" in row)
    assert tracked[1].media(path).read_bytes() == RunDirectory(tracked[0]).curve.read_bytes()


def test_the_latest_checkpoint_is_the_best_where_it_did_best(tracked: tuple[Path, Recorded]) -> None:
    (artifact,) = tracked[1].artifacts("model")
    assert artifact.name == f"checkpoint-{tracked[1].config()['tracking_id']}"
    assert [entry.path for entry in artifact.manifest.contents] == ["checkpoints/iteration-2", "config.json"]
    assert sorted(artifact.aliases) == ["best", "latest"]


def test_the_files_of_a_checkpoint_artifact_are_a_run_that_can_be_evaluated(
    tracked: tuple[Path, Recorded], tmp_path: Path
) -> None:
    (artifact,) = tracked[1].artifacts("model")
    (tmp_path / "checkpoints").mkdir()
    for entry in artifact.manifest.contents:
        shutil.copy(entry.local_path, tmp_path / entry.path)
    downloaded, run = evaluate(tmp_path, 3, 1), evaluate(tracked[0], 3, 1)
    assert (downloaded.returns == run.returns).all()


def test_else_there_is_a_version_of_each(peaked: tuple[Path, Recorded]) -> None:
    versions = peaked[1].artifacts("model")
    assert {artifact.name for artifact in versions} == {f"checkpoint-{peaked[1].config()['tracking_id']}"}
    # W&B calls whatever is logged the latest; so the one that is comes last.
    assert [sorted(artifact.aliases) for artifact in versions] == [["best", "latest"], ["latest"]]
    about = [json.loads(artifact.metadata) for artifact in versions]
    assert [(each["iteration"], each["validation"]) for each in about] == [(2, -1.0), (3, -2.0)]


def test_validation_is_logged_at_its_iterations(peaked: tuple[Path, Recorded]) -> None:
    rows = [row for row in peaked[1].history() if "validation/return_after" in row]
    assert [(row["iteration"], row["validation/return_after"]) for row in rows] == [(0, -3.0), (1, -1.0), (2, -2.0)]
    assert peaked[1].summary()["validation/return_after"] == -2.0


def test_an_iteration_without_validation_logs_none(tracked: tuple[Path, Recorded]) -> None:
    rows = [row for row in tracked[1].history() if "return_after" in row]
    assert ["validation/return_after" in row for row in rows] == [False, True]


def test_an_evaluation_is_a_run_of_its_own_in_the_group(
    peaked: tuple[Path, Recorded], evaluated: tuple[dict[str, Any], Recorded]
) -> None:
    (training,), (run,) = peaked[1].of("run"), evaluated[1].of("run")
    assert (run.run_group, run.job_type) == (training.run_group, "evaluate")
    assert run.run_id.startswith(f"{training.run_id}-eval-")
    # Its name keeps it out of what plots training runs.
    assert evaluated[1].config()["exp_name"] == "maml-trpo-evaluate"
    measured = {"part": "test", "tasks": 4, "steps": 2, "episodes": 3, "deterministic": False}
    expected = {"checkpoint": "best", "iteration": 2, "seed": 5, **measured}
    config = evaluated[1].config()
    assert {name: config[f"evaluation.{name}"] for name in expected} == expected


def test_an_evaluation_names_the_artifact_that_the_training_run_logged(
    peaked: tuple[Path, Recorded], evaluated: tuple[dict[str, Any], Recorded]
) -> None:
    (best,) = (artifact for artifact in peaked[1].artifacts("model") if "best" in artifact.aliases)
    assert evaluated[1].config()["checkpoint"] == {"artifact": f"{best.name}:best", "digest": best.digest}


def test_an_evaluation_holds_the_adaptation_curve(evaluated: tuple[dict[str, Any], Recorded]) -> None:
    written, recorded = evaluated
    rows = [row for row in recorded.history() if "adaptation/return" in row]
    means = np.mean(written["returns"], 0)
    assert [row["adaptation_step"] for row in rows] == [0, 1, 2]
    np.testing.assert_allclose([row["adaptation/return"] for row in rows], means)
    np.testing.assert_allclose(recorded.summary()["adaptation/gain"], means[-1] - means[0])


def test_the_table_has_a_row_for_each_held_out_task(evaluated: tuple[dict[str, Any], Recorded]) -> None:
    written, recorded = evaluated
    (path,) = (row["held_out_tasks/path"] for row in recorded.history() if "held_out_tasks/path" in row)
    table = json.loads(recorded.media(path).read_text())
    assert table["columns"] == ["task", "goal_0", "goal_1", "return_0", "return_1", "return_2", "gain"]
    assert [row[1:3] for row in table["data"]] == [task["goal"] for task in written["tasks"]]
    assert [row[3:6] for row in table["data"]] == written["returns"]
    assert [row[6] for row in table["data"]] == [row[5] - row[3] for row in table["data"]]


def test_videos_of_the_run_directory_are_logged(
    peaked: tuple[Path, Recorded], evaluated: tuple[dict[str, Any], Recorded]
) -> None:
    (row,) = (row for row in evaluated[1].history() if "videos/adaptation/path" in row)
    assert row["videos/adaptation/_type"] == "video-file"
    copied = evaluated[1].media(row["videos/adaptation/path"])
    assert copied.read_bytes() == (peaked[0] / "adaptation.gif").read_bytes()


def test_the_run_file_is_closed(tracked: tuple[Path, Recorded]) -> None:
    assert [record.exit_code for record in tracked[1].of("exit")] == [0]


def test_the_folder_of_the_offline_run_is_found(tracked: tuple[Path, Recorded]) -> None:
    folder = offline_run(tracked[0])
    assert folder is not None
    assert folder.name.startswith("offline-run-")


def test_a_run_without_tracking_has_no_offline_run(tmp_path: Path) -> None:
    assert offline_run(tmp_path) is None


def test_a_resumed_run_keeps_its_id(tmp_path: Path) -> None:
    train(small(tmp_path / "run", iterations=1, track="offline"))
    resume(tmp_path / "run", iterations=2)
    files = sorted((tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb"))
    assert len({file.name for file in files}) == 1
    # An upload of the second part replaces the first: it is whole.
    iterations = [
        json.loads(item.value_json)
        for file in files[1:]
        for record in records(file)
        for item in record.history.item
        if item.nested_key == ["iteration"] and any("gain" in each.nested_key for each in record.history.item)
    ]
    assert iterations == [0, 1]


def test_in_a_sweep_the_run_has_the_id_that_the_agent_chose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_SWEEP_ID", "sw33p")
    monkeypatch.setenv("WANDB_RUN_ID", "trial7")
    directory = train(small(iterations=1, track="offline"))
    assert directory.path == Path("runs/sw33p/trial7")
    assert directory.read_config()["tracking_id"] == Recorded(directory.path).of("run")[0].run_id == "trial7"


def test_it_is_said_where_an_offline_run_is_and_how_to_upload_it(tracked: tuple[Path, Recorded]) -> None:
    shown, upload = where_tracked(tracked[0])
    assert shown == f"W&B run   {tracked[1].file.parent}"
    assert upload == f"upload    wandb sync {tracked[1].file.parent}"


class Failing:
    """A tracker that breaks down with its second row."""

    def __init__(self) -> None:
        self.calls = 0

    def log(self, row: Any) -> None:
        self.calls += 1
        if self.calls == 2:
            raise BrokenPipeError("the process of W&B is gone\nand more")

    def finish(self) -> None:
        raise AssertionError("it failed before")


def test_a_tracker_that_fails_ends_no_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failing = Failing()
    monkeypatch.setattr("metarl.tracking.tracking.make_tracker", lambda *_: failing)
    directory = train(small(tmp_path / "run", iterations=4))
    assert (len(directory.read_metrics()), failing.calls) == (4, 2)
    assert capsys.readouterr().err == (
        "metarl: tracking failed (BrokenPipeError: the process of W&B is gone); the run continues without it, and "
        "metrics.csv is complete\n"
    )


def test_a_tracker_that_cannot_be_made_ends_no_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*given: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("metarl.tracking.tracking.make_tracker", refuse)
    assert len(train(small(tmp_path / "run", iterations=2)).read_metrics()) == 2
    assert capsys.readouterr().err.count("\n") == 1


class OnlineRun:
    """A fake W&B run with a server: it records which artifacts are used, or refuses them."""

    id, offline = "online", False

    def __init__(self, refusal: Exception | None = None) -> None:
        self.config: dict[str, Any] = {}
        self.used: list[str] = []
        self.refusal = refusal

    def define_metric(self, *given: Any, **options: Any) -> None:
        """Do nothing."""

    def use_artifact(self, name: str) -> None:
        if self.refusal:
            raise self.refusal
        self.used.append(name)


def use_online(run: OnlineRun, monkeypatch: pytest.MonkeyPatch, directory: Path) -> None:
    monkeypatch.setattr("wandb.init", lambda **given: run)
    tracker = make_tracker("online", directory, {}, "group", "evaluate", "id")
    tracker.use_checkpoint("abc", "latest", RunDirectory(directory))


def test_online_an_evaluation_uses_the_artifact(
    tracked: tuple[Path, Recorded], monkeypatch: pytest.MonkeyPatch
) -> None:
    use_online(run := OnlineRun(), monkeypatch, tracked[0])
    assert run.used == ["checkpoint-abc:latest"]
    assert run.config["checkpoint"]["artifact"] == "checkpoint-abc:latest"


@pytest.mark.parametrize("kind", [ValueError, CommError, WandbApiFailedError])
def test_an_artifact_that_was_never_uploaded_is_reported_in_one_line(
    kind: type[Exception],
    tracked: tuple[Path, Recorded],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    use_online(run := OnlineRun(kind("not found\nat all")), monkeypatch, tracked[0])
    said = "metarl: not linked to checkpoint-abc:latest, which W&B does not have (not found)\n"
    assert capsys.readouterr().err == said
    assert run.config["checkpoint"]["artifact"] == "checkpoint-abc:latest"


def test_tracking_does_not_change_the_numbers(tracked: tuple[Path, Recorded], tmp_path: Path) -> None:
    train(small(tmp_path / "run", "navigation-2d", horizon=5, iterations=2, seed=3))
    assert numbers(tmp_path / "run") == numbers(tracked[0])


def test_a_run_without_tracking_imports_no_wandb(tmp_path: Path) -> None:
    words = train_words("bandit", "--iterations", 1, out="run")
    loaded = Child(train_and_show_packages, words, folder=tmp_path).ended().stdout.splitlines()[-1]
    assert {"wandb", "tensorboard"} & set(json.loads(loaded)) == set()
    assert not (tmp_path / "run" / "wandb").exists()


def make(tmp_path: Path, track: str) -> Any:
    return make_tracker(track, tmp_path, {}, "group", "train", "id")


def test_wandb_mode_disabled_switches_auto_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert isinstance(make(tmp_path, "auto"), NoTracker)


def test_an_explicit_disabled_beats_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "online")
    assert isinstance(make(tmp_path, "disabled"), NoTracker)


def modes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let trackers only say which mode they were made with."""
    seen: list[str] = []

    def note(directory: Path, mode: str, *rest: Any) -> None:
        seen.append(mode)

    monkeypatch.setattr("metarl.tracking.tracking.WandbTracker", note)
    return seen


def test_auto_is_offline_without_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = modes(monkeypatch)
    make(tmp_path, "auto")
    assert seen == ["offline"]


def test_auto_is_online_with_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = modes(monkeypatch)
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    make(tmp_path, "auto")
    assert seen == ["online"]


def test_auto_is_online_with_a_login_in_netrc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = modes(monkeypatch)
    (tmp_path / ".netrc").write_text("machine api.wandb.ai\n  login user\n  password " + "x" * 40 + "\n")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    make(tmp_path, "auto")
    assert seen == ["online"]


def test_auto_follows_wandb_mode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = modes(monkeypatch)
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    monkeypatch.setenv("WANDB_MODE", "offline")
    make(tmp_path, "auto")
    assert seen == ["offline"]


def test_another_word_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="track must be auto, online, offline, disabled or tensorboard, not"):
        make(tmp_path, "sometimes")


def test_another_wandb_mode_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "sometimes")
    with pytest.raises(InputError, match="sometimes"):
        make(tmp_path, "auto")


def test_online_without_a_key_becomes_offline_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_tracker("online", tmp_path, {}, "group", "train", "without-key").finish()
    assert "metarl: W&B cannot be reached" in capsys.readouterr().err
    assert run_file(tmp_path).exists()


def test_online_without_a_network_becomes_offline_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import wandb

    real = wandb.Settings
    # Nobody listens on port 9 (discard).
    nowhere = {"base_url": "http://127.0.0.1:9", "init_timeout": 2}
    monkeypatch.setattr(wandb, "Settings", lambda **given: real(**{**given, **nowhere}))
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    make_tracker("online", tmp_path, {}, "group", "train", "unreachable").finish()
    assert "metarl: W&B cannot be reached" in capsys.readouterr().err
    assert run_file(tmp_path).exists()


def test_an_untracked_run_takes_every_report(tmp_path: Path) -> None:
    tracker = make(tmp_path, "disabled")
    returns = np.zeros((2, 2))
    curve = AdaptationCurve(TensorDict({"goal": torch.zeros(2)}, [2]), returns, np.zeros(2), 1, "test")
    draw_adaptation_curve(curve, tmp_path / "curve.png", "title")
    tracker.log({"iteration": 0})
    tracker.log_curve(curve, tmp_path / "curve.png")
    tracker.log_video(tmp_path / "video.mp4")
    tracker.log_checkpoints(RunDirectory(tmp_path))
    tracker.use_checkpoint("id", "latest", RunDirectory(tmp_path))
    tracker.finish()
    assert [path.name for path in tmp_path.iterdir()] == ["curve.png"]


def test_what_fails_in_its_own_log_is_not_shown(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    class OnAFullDisk(Callback):
        def on_iteration(self, training: Training) -> None:
            handlers = logging.getLogger("wandb").handlers
            assert handlers
            for handler in handlers:
                try:
                    raise OSError(28, "No space left on device")
                except OSError:
                    handler.handleError(logging.LogRecord("wandb", 20, "", 0, "a line", (), None))

    train(small(tmp_path / "run", iterations=1, track="offline"), callbacks=[OnAFullDisk()])
    assert "No space left" not in capfd.readouterr().err
