"""``metarl continual`` on a small gridworld."""

import json
from pathlib import Path

import numpy as np
import pytest

from metarl.evaluation.evaluate import adaptation_curve, load_run
from metarl.experiments.commands.continual import experiment_of, train_all
from metarl.experiments.commands.main import main
from metarl.experiments.continual.performance import FILE, MeasureAllTasks
from metarl.run.directory import RunDirectory
from metarl.sampling.sampler import Sampler
from metarl.training.callbacks import Callback, Training
from metarl.training.requeue import train_or_resume

WORDS = ["dqn", "gridnavi", "--tasks", "3", "--iterations", "1", "--episodes-per-task", "2", "--horizon", "4"]
WORDS += ["--variant", "oracle", "--hidden-sizes", "4", "--worlds", "1", "--steps-per-gradient", "4"]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("continual") / "out"
    assert main(["continual", *WORDS, "--methods", "ewc", "--out", str(folder)]) == 0
    return folder


def test_the_numbers_are_those_of_the_runs(out: Path) -> None:
    content = json.loads((out / "continual.json").read_text())
    assert content["unit"] == "return"  # the references are for another horizon
    matrix = np.array(content["methods"]["ewc"]["matrix"])
    assert matrix.shape == (1, 3, 3)
    assert np.array(content["from_scratch"]["curves"]).shape == (1, 3, 1)
    assert set(content["methods"]["ewc"]["measures"]) == {
        "average performance",
        "forgetting",
        "backward transfer",
        "forward transfer",
    }
    config, learner, _ = load_run(out / "runs/ewc-seed1")
    tasks = config.split().held_out_tasks("train", 3)
    assert content["tasks"] == [{"goal": task["goal"].tolist()} for task in tasks]
    curve = adaptation_curve(learner, Sampler(config.make_family()), tasks, 0, 2, "train")
    assert matrix[0, -1].tolist() == curve.returns[:, -1].tolist()


def test_the_page_shows_the_matrix(out: Path) -> None:
    page = (out / "index.html").read_text()
    assert all(word in page for word in ("dqn in 3 tasks of gridnavi", "ewc", "forward transfer", "after task 2"))
    assert page.count("data:image/svg+xml") == 3


def test_the_same_command_trains_nothing_again(out: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    train_all(experiment_of([*WORDS, "--methods", "ewc", "--out", str(out)]))
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()} == before


class Stop(Callback):
    def on_iteration(self, training: Training) -> None:
        if training.iteration == 2:
            training.stop("enough")


def test_a_stopped_stream_is_resumed_to_the_same_numbers(out: Path, tmp_path: Path) -> None:
    config = experiment_of([*WORDS, "--methods", "ewc", "--out", str(tmp_path)]).stream("ewc", 1)
    stopped = train_or_resume(config, callbacks=[MeasureAllTasks(), Stop()])
    assert stopped.finished_iterations() is None
    train_or_resume(config, callbacks=[MeasureAllTasks()])
    assert (stopped.path / FILE).read_text() == (out / "runs/ewc-seed1" / FILE).read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("random gridnavi", "does not work with random, only with"),
        ("rl2 gridnavi --episodes-per-trial 3", "set --episodes-per-trial to 4 or a larger multiple of 2, not 3"),
        ("rl2 gridnavi --episodes-per-trial 4 --tasks 1", "a trial whose task changes needs --tasks 2 or more, not 1"),
        ("rl2 gridnavi --episodes-per-trial 10 --tasks 5", "gridnavi has 4 test tasks, not 5"),
        (
            "rl2 gridnavi --episodes-per-trial 4 --methods ewc",
            "--methods of rl2 are constant, changing, not 'ewc'",
        ),
        ("maml-trpo gridnavi --methods none", "--methods of maml-trpo are fine-tuning, replay, ewc, not 'none'"),
        ("--tasks 3", "metarl"),
        ("ppo gridnavi --methods replay", "--methods of ppo are fine-tuning, ewc, not 'replay'"),
        ("dqn gridnavi --variant scratch", "dqn from scratch has nothing to forget"),
        ("dqn gridnavi --tasks 2", "needs --tasks 3 or more, not 2"),
        ("dqn gridnavi --tasks 99", "gridnavi has 13 training tasks, not 99"),
        ("dqn gridnavi --seeds 1,1", "--seeds takes different integers, as in --seeds 1,2,3, not '1,1'"),
        ("rl2 gridnavi --change-probability 0.9", "--change-probability is not an option of metarl continual"),
        ("dqn gridnavi --first-task=2", "--first-task is not an option of metarl continual"),
        ("dqn gridnavi --train-tasks 3", "--train-tasks is not an option of metarl continual"),
        ("dqn gridnavi --iterations many", "--iterations"),
        ("dqnn gridnavi", "did you mean dqn"),
    ],
)
def test_what_makes_no_sense_is_refused(
    words: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["continual", *words.split(), "--out", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


CHANGING = ["rl2", "gridnavi", "--episodes-per-trial", "4", "--hidden-size", "4", "--iterations", "1"]
CHANGING += ["--episodes-per-task", "2", "--tasks-per-batch", "2", "--horizon", "3"]


def test_tasks_that_change_inside_a_trial(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["continual", *CHANGING, "--out", str(tmp_path)]) == 0
    said, content = capsys.readouterr().out, json.loads((tmp_path / "continual.json").read_text())
    labels = ["constant", "constant, memory emptied", "changing", "changing, memory emptied"]
    assert list(content["methods"]) == labels
    assert all(label in said for label in labels)
    runs = [RunDirectory(tmp_path / f"runs/{name}-seed1").read_config()["run"] for name in ("constant", "changing")]
    assert [run["task_source"] for run in runs] == ["uniform", "changing"]
    assert runs[1]["changing"]["change_probability"] == pytest.approx(1 / 3)
    kept, emptied = (np.array(content["methods"][label]["returns"]) for label in labels[:2])
    assert kept.shape == (1, 4, 4)  # seeds, test tasks, episodes
    assert (kept[..., :2] == emptied[..., :2]).all()  # before the change
    page = (tmp_path / "index.html").read_text()
    assert all(word in page for word in ("rl2 in trials of 2 tasks of gridnavi", *labels, "episodes until it is back"))
    assert page.count("data:image/svg+xml") == 1


def test_a_folder_with_other_content_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.txt").touch()
    assert main(["continual", *WORDS, "--out", str(tmp_path)]) == 2
    assert "contains files that are not of metarl continual" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_it_needs_a_folder(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["continual", "dqn", "gridnavi"]) == 2
    assert "--out" in capsys.readouterr().err
