import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import metarl
from metarl.experiments.commands.main import COMMANDS, main
from tests.experiments.messages import complaint
from tests.runs import run_python, train_words

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("trian maml-trpo bandit", "no command is called 'trian'; did you mean train?"),
        (
            "dance",
            "no command is called 'dance'; known: train, reproduce, runs, evaluate, hub, push, check, ",
        ),
        ("train maml-trop bandit", "no learner is called 'maml-trop'; did you mean maml-trpo or "),
        (
            "train maml-trpo half-cheeta",
            "no task family is called 'half-cheeta'; did you mean half-cheetah-vel or half-cheetah-dir?",
        ),
        ("train maml-trpo chess", "no task family is called 'chess'; known: bandit"),
        ("train bandit maml-trpo", "no learner is called 'bandit'"),
        ("train maml-trpo", "name a learner and a family"),
        ("train", "name a learner and a family"),
        ("train maml-trpo bandit --tasks-per-batch 0", "tasks_per_batch must be at least 1, not 0"),
        ("train maml-trpo bandit --episodes-per-task 0", "episodes_per_task must be at least 1, not 0"),
        ("train maml-trpo bandit --iterations 0", "iterations must be at least 1, not 0"),
        ("train maml-trpo navigation-2d --horizon -5", "horizon must be at least 1, not -5"),
        ("train maml-trpo bandit --horizon 5", "a bandit's episode is one pull"),
        ("train maml-trpo gridnavi --policy gaussian", "a gaussian policy cannot act in Discrete(5)"),
        ("train maml-trpo navigation-2d --policy categorical", "a categorical policy cannot act in Box"),
        ("train maml-trpo bandit --policy magic", "invalid choice 'magic'"),
        ("train maml-trpo bandit --preset k7", "bandit has no preset 'k7'; it has k5, k10, k50"),
        ("train maml-trpo bandit --inner-rate 0.1", "Unrecognized options: --inner-rate"),
        (
            "train maml-trpo bandit --inner-lrr 0.1",
            "Unrecognized options: --inner-lrr, 0.1; did you mean --inner-lr? (metarl",
        ),
        ("train maml-trpo bandit --iteration 3", "--iteration, 3; did you mean --iterations?"),
        ("train maml-trpo bandit --discount x", "--discount takes a number, not 'x'"),
        ("train maml-trpo bandit --train-tasks x", "--train-tasks takes an integer, not 'x'"),
        ("train maml-trpo bandit --redraw x y", "--redraw takes integers, separated by spaces, not 'x', 'y'"),
        ("evaluate run --tasks x", "--tasks takes an integer or one of {train,validation,test,ood}, not 'x'"),
        ("collect run", "metarl: metarl collect needs --out STR (metarl collect --help"),
        ("push", "metarl push needs RUN and OWNER/NAME (metarl push --help"),
        ("train maml-trpo bandit --iterations many", "--iterations takes an integer, not 'many' (metarl train"),
        ("train maml-trpo bandit --iterations", "Missing value for argument '--iterations'"),
        ("train maml-trpo bandit --inner-lr -0.1", "inner_lr must be positive, not -0.1"),
        ("train maml-trpo bandit --inner-lr nan", "inner_lr must be positive, not nan"),
        ("train maml-trpo bandit --inner-steps 0", "inner_steps must be at least 1, not 0"),
        ("train maml-trpo bandit --discount 2", "discount must lie in [0, 1], not 2.0"),
        ("train maml-trpo bandit --max-kl -1", "max_kl"),
        ("train maml-trpo bandit --hidden-sizes 0", "every hidden layer needs at least one unit"),
        ("train maml-trpo bandit --activation sine", "activation must be tanh, relu, another elementwise"),
        ("train maml-trpo bandit --validate-every -1", "validate_every must be 0 or more, not -1"),
        ("train maml-trpo bandit --device toaster", "unknown device 'toaster'"),
        ("train maml-trpo bandit --device cuda:99", "there is no CUDA device 'cuda:99'"),
        ("train maml-trpo bandit --device meta", "meta"),
        ("train maml-trpo bandit --track sometimes", "invalid choice 'sometimes'"),
        ("train --resume nowhere", "there is no run directory nowhere"),
        ("train --resume nowhere --seed 3", "Unrecognized options: --seed"),
        ("train --resume", "Missing value for argument '--resume' (metarl train --resume RUN --help explains"),
        ("evaluate nowhere", "there is no run directory nowhere"),
        ("evaluate", "metarl: metarl evaluate needs RUN (metarl evaluate --help explains the options)"),
        ("families --verbose", "metarl families takes no arguments, but was given --verbose; metarl families show"),
        ("learners maml", "metarl learners takes no arguments, but was given maml"),
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


@pytest.mark.parametrize("command", ["evaluate", "train --resume"])
def test_a_truncated_checkpoint_is_refused(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(train_words("bandit", "--iterations", 1, out="run"))
    capsys.readouterr()
    checkpoint = tmp_path / "run" / "checkpoints" / "iteration-1"
    checkpoint.write_bytes(checkpoint.read_bytes()[:-100])
    assert "truncated" in complaint([*command.split(), "run"], capsys)


@pytest.mark.parametrize("command", ["evaluate", "train --resume"])
def test_a_folder_of_something_else_is_refused(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "thesis").mkdir()
    assert "is not a run directory of metarl" in complaint([*command.split(), "thesis"], capsys)


def test_without_words_the_usage_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert "usage: metarl COMMAND" in "".join(capsys.readouterr())


@pytest.mark.parametrize(
    ("words", "given"),
    [
        ("evaluate", "RUN"),
        ("compare", "RUN RUN ..."),
        ("push", "RUN OWNER/NAME"),
        ("families show", "FAMILY"),
        ("train maml-trpo bandit", ""),
    ],
)
def test_help_shows_types_as_people_write_them(words: str, given: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main([*words.split(), "--help"])
    assert end.value.code == 0
    shown = capsys.readouterr().out
    assert given in shown.splitlines()[0]
    assert "None}" not in shown


@pytest.mark.parametrize("words", ["--help", "-h", "train --help", "hub -h", "families --help"])
def test_help_shows_the_usage(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words.split()) == 0
    assert "usage: metarl COMMAND" in capsys.readouterr().out


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    command = [sys.executable, "-m", "metarl.experiments.commands.main", "families"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_of_the_usage_is_a_module_that_runs(command: str) -> None:
    assert callable(import_module(COMMANDS[command]).run)


def test_usage_version_listings_and_misspelt_names_need_no_torch() -> None:
    script = (
        "import sys\n"
        "from metarl.experiments.commands.main import main\n"
        "words = '--help', '--version', 'families', 'learners', 'dance', 'train maml-trop bandit', 'train rl2 bandti'\n"
        "assert [main(each.split()) for each in words] == [0, 0, 0, 0, 2, 2, 2]\n"
        "assert not {'torch', 'tyro', 'matplotlib'} & set(sys.modules)\n"
    )
    ended = run_python("-c", script, cwd=ROOT)
    assert (ended.returncode, ended.stderr.count("\n")) == (0, 3), ended.stderr
    assert f"metarl {metarl.__version__}" in ended.stdout
    assert "metarl train LEARNER FAMILY [options]" in ended.stdout


@pytest.mark.parametrize("words", [["--quiet", "families"], ["families", "--quiet"], ["train", "x", "y", "--quiet"]])
def test_quiet_prints_nothing_but_errors(words: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    expected = 2 if "train" in words else 0
    assert main(words) == expected
    printed = capfd.readouterr()
    assert printed.out == ""
    assert ("no learner is called 'x'" in printed.err) == bool(expected)
    assert main(["learners"]) == 0  # the next command prints again
    assert "maml-trpo" in capfd.readouterr().out


@pytest.mark.parametrize(("words", "shown"), [([], "usage"), (["--help"], "usage"), (["--version"], "metarl ")])
def test_quiet_alone_is_as_nothing(words: list[str], shown: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--quiet", *words]) == 0
    assert shown in capsys.readouterr().out.lower()


def test_an_error_of_ones_own_says_what_finds_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(words: list[str]) -> None:
        raise RuntimeError("mat1 and mat2")

    monkeypatch.setattr("metarl.experiments.commands.evaluate.run", broken)
    with pytest.raises(RuntimeError) as caught:
        main(["evaluate", "mine:my-family"])
    assert caught.value.__notes__ == [
        "metarl.check_family('mine:my-family') or metarl.check_learner says what is wrong with your own"
    ]
    with pytest.raises(RuntimeError) as caught:
        main(["evaluate", "hub:mine"])
    assert not hasattr(caught.value, "__notes__")
