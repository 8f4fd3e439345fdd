import dataclasses
from pathlib import Path
from typing import Any

import pytest

from metarl.experiments.commands.main import main
from metarl.experiments.published import MODULES
from metarl.families.family import FAMILIES
from metarl.families.family_settings import explanations
from metarl.learning.learner import LEARNERS
from metarl.learning.trust_region import TrustRegionConfig
from metarl.run.config import RunConfig
from metarl.run.directory import RunDirectory
from metarl.run.labels import RunLabels
from metarl.sampling.changing_tasks import ChangingConfig
from metarl.sampling.task_source import PlrConfig, StreamConfig
from metarl.storage.lock import RunLock
from tests.experiments.messages import complaint, help_of, sentences
from tests.forked import Child
from tests.runs import SMALL, numbers, run_python, train_words


def test_an_out_that_cannot_be_written_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("mine")
    assert "cannot write the run to" in complaint(train_words("bandit", out="file/run"), capsys)


def test_an_occupied_out_is_refused(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    said = complaint(train_words("bandit", out=run), capsys)
    assert f"{run} is not empty" in said
    assert f"metarl train --resume {run}" in said


def test_a_run_that_is_done_is_not_resumed(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "has done 2 iterations already" in complaint(["train", "--resume", run], capsys)


def test_a_failure_while_running_is_one_line_and_exit_code_1(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from metarl.agents.gradient.maml_trpo import MamlTrpo
    from metarl.errors import RunError

    def fail(self: MamlTrpo, rollouts: Any) -> None:
        raise RunError("the update is not finite")

    monkeypatch.setattr(MamlTrpo, "update", fail)
    assert main(train_words("bandit", out="run")) == 1
    said = capsys.readouterr()
    assert (said.out, said.err.count("\n")) == ("", 1)
    assert said.err.startswith("metarl: iteration 0: the update is not finite")


@pytest.mark.parametrize("learner", LEARNERS)
def test_help_explains_every_setting(learner: str, capsys: pytest.CaptureFixture[str]) -> None:
    own = LEARNERS[learner].config_class
    nested: dict[str, type] = {
        "labels": RunLabels,
        "plr": PlrConfig,
        "stream": StreamConfig,
        "changing": ChangingConfig,
    }
    nested["trust_region"] = TrustRegionConfig
    inside = {field.name for config in (RunConfig, own) for field in dataclasses.fields(config)} & set(nested)
    shown = help_of(["train", learner, "navigation-2d"], capsys)
    for config in (RunConfig, own, *(nested[name] for name in inside)):
        explained = sentences(config)
        for name in (field.name for field in dataclasses.fields(config) if field.name not in nested):
            assert f"--{name.replace('_', '-')}" in shown
            assert "".join(explained[name].split()) in shown, name


def test_training_says_what_came_of_it_and_what_is_next(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(train_words("bandit", "--iterations", 1, out="run")) == 0
    said = capsys.readouterr()
    # 2 tasks, 3 episodes of 1 step, before and after adaptation.
    assert "trained 1 iterations, 12 env steps" in said.out
    assert "next: metarl evaluate run" in said.out
    assert "run/adaptation_curve.png" in said.out
    assert said.err == ""


def test_options_reach_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    options = "--iterations 1 --seed 5 --horizon 4 --inner-lr 0.3 --inner-steps 2 --max-kl 0.02 --preset maml"
    assert main(train_words("navigation-2d", *options.split(), out="run")) == 0
    content = RunDirectory("run").read_config()
    assert {key: content["run"][key] for key in ("iterations", "seed", "horizon", "preset", "tasks_per_batch")} == {
        "iterations": 1, "seed": 5, "horizon": 4, "preset": "maml", "tasks_per_batch": 2}  # fmt: skip
    settings = content["settings"]
    assert (settings["inner_lr"], settings["inner_steps"], settings["hidden_sizes"]) == (0.3, 2, [8])
    assert settings["trust_region"]["max_kl"] == 0.02


def test_fields_of_the_family_reach_the_run_and_its_evaluation(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(train_words("bandit", "--iterations", 1, "--family.arms", 4, out="run")) == 0
    content = RunDirectory("run").read_config()
    assert content["family_overrides"] == {"arms": 4}
    assert content["family_settings"]["arms"] == 4
    assert main(["evaluate", "run", "--tasks", "2", "--steps", "1"]) == 0


def test_help_explains_the_fields_of_the_family(capsys: pytest.CaptureFixture[str]) -> None:
    shown = help_of(["train", "maml-trpo", "half-cheetah-vel"], capsys)
    assert "--family.max-velocity" in shown
    assert "".join(explanations(FAMILIES["half-cheetah-vel"])["max_velocity"].split()) in shown


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("cartpole-params --family.task-space 3", "no option --family.task-space: it is not a number"),
        ("bandit --family.horizon=3", "no option --family.horizon: use --horizon"),
        ("bandit --family.legs 3", "Unrecognized options: --family.legs"),
    ],
)
def test_fields_of_a_family_that_no_run_sets_are_refused(
    words: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in complaint(["train", "maml-trpo", *words.split()], capsys)


def test_a_stopped_run_is_resumed_from_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    main(train_words("bandit", "--iterations", 1, out="run"))
    assert main(["train", "--resume", "run", "--iterations", "3"]) == 0
    assert "trained 3 iterations, 36 env steps" in capsys.readouterr().out
    assert len(numbers("run")) == 3


SHORT = "--iterations 1 --tasks-per-batch 2 --episodes-per-task 2 --horizon 5 --track disabled --out run"


@pytest.mark.parametrize("words", ["--published maml-trpo-navigation-2d", "--published=maml-trpo-navigation-2d"])
def test_a_published_experiment_is_trained_with_its_settings_but_for_the_options(words: str, tmp_path: Path) -> None:
    assert main(["train", *words.split(), *SHORT.split()]) == 0
    content = RunDirectory(tmp_path / "run").read_config()
    assert (content["learner"], content["family"], content["preset"]) == ("maml-trpo", "navigation-2d", "maml")
    assert (content["settings"]["inner_lr"], content["run"]["horizon"]) == (0.5, 5)


@pytest.mark.parametrize("words", ["--published", "--published --help", "--published -h"])
def test_published_experiments_are_listed(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *words.split()]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[::2] == sorted(MODULES)
    assert "  MAML-TRPO on 2D navigation, with the settings of Finn et al. 2017, section 5.3 and appendix A.2." in lines


def test_the_help_of_a_published_experiment_has_its_source_and_its_settings(capsys: pytest.CaptureFixture[str]) -> None:
    shown = help_of(["train", "--published", "maml-trpo-navigation-2d"], capsys)
    assert "Finnetal.2017,section5.3" in shown
    assert "".join(["(default:", "0.5)"]) in shown


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--published varibad", "no published experiment is called 'varibad'; did you mean varibad-gridnavi"),
        ("--published chess", "no published experiment is called 'chess'; known: "),
        ("--published varibad_gridnavi", "did you mean varibad-gridnavi"),
        ("--published=", "--published needs the name of an experiment before any option"),
        ("--published --seed 1", "--published needs the name of an experiment before any option"),
        ("--published=--seed", "--published needs the name of an experiment before any option"),
        ("--seed 1 --published varibad-gridnavi", "put it first, as in metarl train --published NAME [options]"),
        ("varibad gridnavi --published varibad-gridnavi", "--published names learner and family as well: put it first"),
        ("--resume run --published varibad-gridnavi", "--published names learner and family as well: put it first"),
        ("--published varibad-gridnavi --resume run", "Unrecognized options: --resume"),
        ("--published varibad-gridnavi gridnavi", "Unrecognized options: gridnavi"),
        ("--published varibad-gridnavi --published pearl-sparse-point", "Unrecognized options: --published"),
        ("--published varibad-gridnavi --inner-lr 0.1", "Unrecognized options: --inner-lr"),
        ("--published varibad-gridnavi --iterations 0", "iterations must be at least 1, not 0"),
        ("--published varibad-gridnavi --preset rl2", "gridnavi has no preset 'rl2'"),
        ("--published varibad-gridnavi --device toaster", "unknown device 'toaster'"),
    ],
)
def test_a_published_experiment_that_makes_no_sense_is_refused(
    words: str, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert expected in complaint(["train", *words.split()], capsys)
    assert list(tmp_path.iterdir()) == []


OWN = '''
from dataclasses import dataclass

from metarl.agents.gradient.maml_trpo import MamlTrpo
from metarl.envs.basic.navigation import Navigation2D
from metarl.families.family import register_family
from metarl.learning.learner import register_learner


@register_family
@dataclass(frozen=True)
class Mine(Navigation2D):
    """A family of one's own."""

    name = "mine"
    env_id = "mine/Mine-v0"
    presets = {"short": {"horizon": 4}}


@register_learner
class MyLearner(MamlTrpo):
    """A learner of one's own."""

    name = "my-learner"
'''


@pytest.mark.parametrize("learner", ["maml-trpo", "own_tasks:my-learner"])
def test_a_family_and_a_learner_of_a_file_in_the_current_folder_are_trained_and_evaluated(
    learner: str, tmp_path: Path
) -> None:
    (tmp_path / "own_tasks.py").write_text(OWN)
    words = ["train", learner, "own_tasks:mine", *SMALL, "--iterations", "1", "--out", "run"]
    trained = Child(main, words, folder=tmp_path).ended()
    assert (trained.returncode, trained.stderr) == (0, "")
    evaluated = Child(main, ["evaluate", "run", "--tasks", "2", "--steps", "1"], folder=tmp_path).ended()
    assert (evaluated.returncode, evaluated.stderr) == (0, "")
    assert evaluated.stdout.startswith(f"{learner} on own_tasks:mine (short), seed 1, trained for 1 iterations")


def test_a_file_in_the_current_folder_takes_the_place_of_no_installed_module(tmp_path: Path) -> None:
    (tmp_path / "own_tasks.py").write_text(OWN)
    for name in ("random", "tyro"):  # imported at the start, and when options are parsed
        (tmp_path / f"{name}.py").write_text("raise ImportError")
    # -P keeps the current folder out of the path of Python itself, as it is for the installed command.
    words = ["families", "show", "own_tasks:mine"]
    shown = run_python("-P", "-m", "metarl.experiments.commands.main", *words, cwd=tmp_path)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout.startswith("mine  ")


def test_a_module_that_is_nowhere_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert "cannot import 'nowhere' for the task family" in complaint(["train", "maml-trpo", "nowhere:mine"], capsys)


def test_a_job_that_is_queued_again_runs_the_same_command(capsys: pytest.CaptureFixture[str]) -> None:
    words = [*train_words("bandit", "--iterations", 2, out="run"), "--resume-if-there"]
    for _ in range(2):
        assert main(words) == 0
        assert "trained 2 iterations, 24 env steps" in capsys.readouterr().out
    assert main([*train_words("bandit", "--iterations", 3, out="run"), "--resume-if-there"]) == 0
    assert "trained 3 iterations, 36 env steps" in capsys.readouterr().out
    assert "is another run: its seed is 1, not 4" in complaint([*words, "--seed", "4"], capsys)


def test_help_explains_how_a_job_is_queued_again(capsys: pytest.CaptureFixture[str]) -> None:
    assert "With--resume-if-there,arunthatalreadyexistsin--outisresumed" in help_of(
        ["train", "maml-trpo", "bandit"], capsys
    )


def test_a_place_with_a_nul_byte_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert "holds a NUL byte" in complaint(train_words("bandit", out="a\0b"), capsys)


def test_a_run_that_another_process_writes_is_refused(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    with RunLock(Path(run)):
        said = complaint(["train", "--resume", run, "--iterations", "5"], capsys)
    assert "is being written by process" in said
