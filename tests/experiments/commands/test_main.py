import ast
import dataclasses
import inspect
import json
import subprocess
import sys
import textwrap
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from metarl.config import RunConfig
from metarl.experiments.commands.main import EvaluateOptions, main
from metarl.learner import LEARNERS
from metarl.run_directory import RunDirectory
from metarl.task_source import PlrConfig
from metarl.training import train
from metarl.trust_region import TrustRegionConfig
from tests.runs import numbers, run_python, small, train_words

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a trained run; evaluations may write into it."""
    path = tmp_path_factory.mktemp("cli") / "run"
    assert main(train_words("bandit", "--iterations", 2, out=path)) == 0
    return str(path)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("trian maml-trpo bandit", "no command is called 'trian'; did you mean train?"),
        ("dance", "no command is called 'dance'; known: train, evaluate, collect, compare, render, families, learners"),
        ("train maml-trop bandit", "no learner is called 'maml-trop'; did you mean maml-trpo or "),
        (
            "train maml-trpo half-cheeta",
            "no task family is called 'half-cheeta'; did you mean half-cheetah-vel or half-cheetah-dir?",
        ),
        ("train maml-trpo chess", "no task family is called 'chess'; known: bandit"),
        ("train bandit maml-trpo", "no learner is called 'bandit'"),
        ("train maml-trpo", "train needs a learner and a family"),
        ("train", "train needs a learner and a family"),
        ("train maml-trpo bandit --tasks-per-batch 0", "tasks_per_batch must be at least 1, not 0"),
        ("train maml-trpo bandit --episodes-per-task 0", "episodes_per_task must be at least 1, not 0"),
        ("train maml-trpo bandit --iterations 0", "iterations must be at least 1, not 0"),
        ("train maml-trpo navigation-2d --horizon -5", "horizon must be at least 1, not -5"),
        ("train maml-trpo bandit --horizon 5", "a bandit's episode is one pull"),
        ("train maml-trpo gridnavi --policy gaussian", "a gaussian policy cannot act in Discrete(5)"),
        ("train maml-trpo navigation-2d --policy categorical", "a categorical policy cannot act in Box"),
        ("train maml-trpo bandit --policy magic", "invalid choice 'magic'"),
        ("train maml-trpo bandit --preset k7", "bandit has no preset 'k7'; it has k5, k10"),
        ("train maml-trpo bandit --inner-rate 0.1", "Unrecognized options: --inner-rate"),
        ("train maml-trpo bandit --iterations many", "Error parsing --iterations"),
        ("train maml-trpo bandit --iterations", "Missing value for argument '--iterations'"),
        ("train maml-trpo bandit --inner-lr -0.1", "inner_lr must be positive, not -0.1"),
        ("train maml-trpo bandit --inner-lr nan", "inner_lr must be positive, not nan"),
        ("train maml-trpo bandit --inner-steps 0", "inner_steps must be at least 1, not 0"),
        ("train maml-trpo bandit --discount 2", "discount must lie in [0, 1], not 2.0"),
        ("train maml-trpo bandit --max-kl -1", "max_kl"),
        ("train maml-trpo bandit --hidden-sizes 0", "every hidden layer needs at least one unit"),
        ("train maml-trpo bandit --activation sine", "activation must be one of tanh, relu"),
        ("train maml-trpo bandit --validate-every -1", "validate_every must be 0 or more, not -1"),
        ("train maml-trpo bandit --device toaster", "there is no device called 'toaster'"),
        ("train maml-trpo bandit --device cuda:99", "there is no CUDA device 'cuda:99'"),
        ("train maml-trpo bandit --device meta", "meta"),
        ("train maml-trpo bandit --track sometimes", "invalid choice 'sometimes'"),
        ("train --resume nowhere", "there is no run directory nowhere"),
        ("train --resume nowhere --seed 3", "Unrecognized options: --seed"),
        ("train --resume", "Missing value for argument '--resume'"),
        ("evaluate nowhere", "there is no run directory nowhere"),
        ("evaluate", "Directory of the run"),
        ("families --verbose", "metarl families takes nothing more, not --verbose"),
        ("learners maml", "metarl learners takes nothing more, not maml"),
    ],
    ids=lambda text: text if " " in text or len(text) < 10 else None,
)
def test_bad_input_is_one_line_and_exit_code_2(
    words: str, complaint: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(words.split()) == 2
    said = capsys.readouterr().err
    assert said.startswith("metarl: ")
    assert said.count("\n") == 1
    assert complaint in said
    # Nothing was started: there is no runs/ and nothing else.
    assert list(tmp_path.iterdir()) == []


def complaint(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Return the one line that a refused command writes."""
    assert main(words) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("metarl: ")
    assert captured.err.count("\n") == 1
    return captured.err


def test_an_out_that_cannot_be_written_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("mine")
    assert "cannot write the run to" in complaint(train_words("bandit", out="file/run"), capsys)


def test_an_occupied_out_is_refused(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    said = complaint(train_words("bandit", out=run), capsys)
    assert f"{run} is not empty" in said
    assert f"metarl train --resume {run}" in said


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


@pytest.mark.parametrize("command", ["evaluate", "train --resume"])
def test_a_truncated_checkpoint_is_refused(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(train_words("bandit", "--iterations", 1, out="run"))
    capsys.readouterr()
    checkpoint = tmp_path / "run" / "checkpoint.pt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:-100])
    assert "truncated" in complaint([*command.split(), "run"], capsys)


@pytest.mark.parametrize("command", ["evaluate", "train --resume"])
def test_a_folder_of_something_else_is_refused(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "thesis").mkdir()
    assert "is not a run directory of metarl" in complaint([*command.split(), "thesis"], capsys)


def test_a_run_that_is_done_is_not_resumed(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "has its 2 iterations" in complaint(["train", "--resume", run], capsys)


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


def test_without_words_the_usage_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "usage: metarl COMMAND" in "".join(capsys.readouterr())


@pytest.mark.parametrize("words", ["--help", "-h", "train --help", "train maml-trpo --help"])
def test_help_shows_the_usage(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words.split()) == 0
    assert "usage: metarl COMMAND" in capsys.readouterr().out


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


TRAINING = [
    (learner, config, field.name)
    for learner, found in LEARNERS.items()
    for config in (found.config_class, *([RunConfig, PlrConfig, TrustRegionConfig] if learner == "maml-trpo" else []))
    for field in dataclasses.fields(config)
    if field.name not in ("trust_region", "plr")  # dataclasses of their own
]


@pytest.mark.parametrize(("learner", "config", "name"), TRAINING)
def test_help_explains_every_setting(learner: str, config: type, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    shown = help_of(["train", learner, "navigation-2d"], capsys)
    sentence = "".join(sentences(config)[name].split())
    assert f"--{name.replace('_', '-')}" in shown
    assert sentence in shown


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(EvaluateOptions) if field.name != "run"])
def test_help_explains_every_option_of_evaluate(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    shown = help_of(["evaluate"], capsys)
    assert f"--{name}" in shown
    assert "".join(sentences(EvaluateOptions)[name].split()) in shown


def test_learners_are_all_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["learners"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert set(LEARNERS) <= set(lines)


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


def test_a_stopped_run_is_resumed_from_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    main(train_words("bandit", "--iterations", 1, out="run"))
    assert main(["train", "--resume", "run", "--iterations", "3"]) == 0
    assert "trained 3 iterations, 36 env steps" in capsys.readouterr().out
    assert len(numbers("run")) == 3


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
    kept = ("checkpoint.pt", "config.json", "metrics.csv")
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


def test_a_published_experiment_runs_as_a_script(tmp_path: Path) -> None:
    words = "--iterations 1 --tasks-per-batch 2 --episodes-per-task 2 --horizon 5 --track disabled --out run"
    ended = run_python(
        str(ROOT / "experiments" / "published" / "maml_trpo_navigation_2d.py"), *words.split(), cwd=tmp_path
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    content = RunDirectory(tmp_path / "run").read_config()
    # What is not overridden is as published.
    assert (content["settings"]["inner_lr"], content["run"]["horizon"]) == (0.5, 5)


PUBLISHED = sorted(
    path.stem for path in (ROOT / "experiments" / "published").glob("*.py") if "\nEXPERIMENT = " in path.read_text()
)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_experiment_is_a_config_that_can_be_made(name: str) -> None:
    config = import_module(f"metarl.experiments.published.{name}").EXPERIMENT
    assert config.make_learner().name == config.learner


def test_the_published_experiments_are_found() -> None:
    assert {"maml_trpo_navigation_2d", "maml_trpo_half_cheetah_vel"} <= set(PUBLISHED)


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    command = [sys.executable, "-m", "metarl.experiments.commands.main", "families"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""


def test_an_evaluation_on_other_tasks_stands_beside_that_on_test_tasks(
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
        "metarl: bandit has no tasks outside its distribution (ood); take those of a part\n"
    )
