import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from metarl.errors import InputError
from metarl.experiments.commands.main import main
from metarl.run.directory import RunDirectory
from metarl.tracking.tracking import tracking_mode, where_tracked
from metarl.training.train import resume, train
from tests.forked import Child, train_and_show_packages
from tests.runs import VALIDATION_TASKS, numbers, small, train_words


class Events:
    """The content of the event files of one tracked run."""

    def __init__(self, folder: Path) -> None:
        self.read = EventAccumulator(str(folder), {"tensors": 0, "images": 0, "scalars": 0, "histograms": 0}).Reload()

    def scalars(self, name: str) -> list[tuple[int, float]]:
        return [(event.step, event.value) for event in self.read.Scalars(name)]

    def text(self, name: str) -> str:
        (event,) = self.read.Tensors(f"{name}/text_summary")
        found: bytes = event.tensor_proto.string_val[0]
        return found.decode()


SETTINGS: dict[str, Any] = {"validate_every": 1, "histogram_every": 2}


def folder(directory: Path, job_type: str) -> Path:
    (found,) = (directory / "tensorboard").glob(f"{job_type}-*")
    return found


@pytest.fixture(scope="module")
def tracked(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunDirectory, Events]:
    """Return a run tracked by TensorBoard, and its events, read back."""
    path = tmp_path_factory.mktemp("tensorboard") / "run"
    directory = train(small(path, "navigation-2d", horizon=5, iterations=2, track="tensorboard", **SETTINGS))
    return directory, Events(folder(path, "train"))


def column(directory: RunDirectory, axis: str, name: str) -> list[tuple[int, float]]:
    return [(int(row[axis]), pytest.approx(float(row[name]))) for row in directory.read_metrics()]


@pytest.mark.parametrize(
    ("shown", "name", "axis"),
    [
        ("learner/kl", "kl", "iteration"),
        ("training/return_after", "return_after", "env_steps"),
        ("time/time_update", "time_update", "iteration"),
        ("validation/return_after", "validation/return_after", "env_steps"),
    ],
)
def test_scalars_are_logged_in_groups_against_their_axes(
    shown: str, name: str, axis: str, tracked: tuple[RunDirectory, Events]
) -> None:
    assert tracked[1].scalars(shown) == column(tracked[0], axis, name)


def test_hyperparameters_are_in_its_table(tracked: tuple[RunDirectory, Events]) -> None:
    content = tracked[1].read.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    given = HParamsPluginData.FromString(content).session_start_info.hparams
    assert given["inner_lr"].number_value == tracked[0].read_config()["settings"]["inner_lr"]
    assert given["learner"].string_value == "maml-trpo"
    shown = HParamsPluginData.FromString(tracked[1].read.SummaryMetadata("_hparams_/experiment").plugin_data.content)
    assert {each.name.tag for each in shown.experiment.metric_infos} <= set(tracked[1].read.scalars.Keys())


def test_histograms_are_logged_at_the_iterations_that_are_asked_for(tracked: tuple[RunDirectory, Events]) -> None:
    names = [f"parameters/{name}" for name in tracked[0].load_checkpoint()["learner"]["params"]]
    assert sorted(tracked[1].read.histograms.Keys()) == sorted(names)
    assert [event.step for event in tracked[1].read.Histograms(names[0])] == [1]


def test_the_adaptation_curve_is_logged_against_adaptation_steps(tracked: tuple[RunDirectory, Events]) -> None:
    last = tracked[0].read_metrics()[-1]
    values = [pytest.approx(float(last[f"validation/return_{when}"])) for when in ("before", "after")]
    assert tracked[1].scalars("adaptation/return") == list(enumerate(values))


def test_the_picture_is_the_one_in_the_run(tracked: tuple[RunDirectory, Events]) -> None:
    (event,) = tracked[1].read.Images("adaptation_curve")
    with Image.open(tracked[0].curve) as picture:
        assert (event.width, event.height) == picture.size


def test_the_config_is_a_text(tracked: tuple[RunDirectory, Events]) -> None:
    config = json.loads(tracked[1].text("config").removeprefix("```json\n").removesuffix("\n```"))
    assert config["env_id"] == "metarl/Navigation2D-v0"
    assert config["settings"] == tracked[0].read_config()["settings"]


def test_the_held_out_tasks_are_a_table(tracked: tuple[RunDirectory, Events]) -> None:
    lines = tracked[1].text("held_out_tasks").splitlines()
    assert lines[0] == "| task | goal_0 | goal_1 | return_0 | return_1 | gain |"
    assert len(lines) == 2 + VALIDATION_TASKS


def test_checkpoints_are_identified_by_their_paths(tracked: tuple[RunDirectory, Events]) -> None:
    assert tracked[1].text("checkpoint/latest") == str(tracked[0].checkpoint)
    assert tracked[1].text("checkpoint/best") == str(tracked[0].find_checkpoint("best"))


def test_it_is_said_how_to_look_at_it(tracked: tuple[RunDirectory, Events]) -> None:
    assert where_tracked(tracked[0].path) == [f"show      tensorboard --logdir {tracked[0].path / 'tensorboard'}"]


def test_tracking_by_it_does_not_change_the_numbers(tracked: tuple[RunDirectory, Events], tmp_path: Path) -> None:
    train(small(tmp_path / "run", "navigation-2d", horizon=5, iterations=2, **SETTINGS))
    assert numbers(tmp_path / "run") == numbers(tracked[0].path)


def test_a_resumed_run_continues_in_its_folder(tmp_path: Path) -> None:
    train(small(tmp_path / "run", iterations=1, track="tensorboard"))
    directory = resume(tmp_path / "run", iterations=2)
    assert Events(folder(tmp_path / "run", "train")).scalars("learner/kl") == column(directory, "iteration", "kl")


def test_what_was_logged_after_the_checkpoint_is_logged_once(tmp_path: Path) -> None:
    directory = train(small(tmp_path / "run", iterations=4, checkpoint_every=2, histogram_every=1, track="tensorboard"))
    directory.checkpoint.unlink()
    directory.finished.unlink()
    resume(directory.path)
    events = Events(folder(directory.path, "train"))
    assert events.scalars("learner/kl") == column(directory, "iteration", "kl")
    assert events.scalars("training/return_after") == column(directory, "env_steps", "return_after")
    (name, *_) = events.read.Tags()["histograms"]
    assert [event.step for event in events.read.Histograms(name)] == [0, 1, 2, 3]


def test_an_evaluation_has_a_folder_of_its_own_with_video_and_checkpoint(tmp_path: Path) -> None:
    directory = train(small(tmp_path / "run", iterations=1))
    (tmp_path / "run" / "adaptation.mp4").write_bytes(b"a video")
    assert main(["evaluate", str(directory.path), "--tasks", "3", "--steps", "2", "--track", "tensorboard"]) == 0
    events = Events(folder(directory.path, "evaluate"))
    means = np.mean(json.loads(directory.evaluation.read_text())["returns"], 0)
    assert events.scalars("adaptation/return") == [(step, pytest.approx(mean)) for step, mean in enumerate(means)]
    assert events.scalars("adaptation/gain") == [(2, pytest.approx(means[2] - means[0]))]
    assert events.text("checkpoint") == str(directory.checkpoint)
    assert events.text("videos/adaptation") == str(tmp_path / "run" / "adaptation.mp4")


def test_without_the_package_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metarl.tracking.tracking.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"needs a package: pip install 'metarl-gym\[tensorboard\]'"):
        tracking_mode("tensorboard")
    assert tracking_mode("offline") == "offline"


def test_a_run_that_it_tracks_imports_no_wandb(tmp_path: Path) -> None:
    words = [word for word in train_words("bandit", "--iterations", 1, out="run") if word != "disabled"]
    words.insert(words.index("--track") + 1, "tensorboard")
    loaded = Child(train_and_show_packages, words, folder=tmp_path).ended().stdout.splitlines()[-1]
    assert {"wandb", "tensorboard"} & set(json.loads(loaded)) == {"tensorboard"}
