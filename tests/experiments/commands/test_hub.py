"""Published runs: pushed to a server that speaks the Hub's protocol, fetched again, and those that come with metarl."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

import metarl
from metarl.experiments.commands.main import main
from metarl.run.directory import RunDirectory
from metarl.storage.hub import shipped_runs
from metarl.training.train import train
from tests.experiments.messages import complaint
from tests.hub_server import TOKEN, HubServer, hub_server
from tests.runs import numbers, small


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    constants = pytest.importorskip("huggingface_hub.constants")
    with hub_server() as running:
        monkeypatch.setattr(constants, "ENDPOINT", running.url)
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.removeprefix("https://huggingface.co")
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", running.url + template)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield running


@pytest.fixture
def pushed(server: HubServer) -> HubServer:
    train(small("run", checkpoint_every=2))
    assert main(["evaluate", "run", "--tasks", "3", "--steps", "1"]) == 0
    assert main(["push", "run", "me/bandit"]) == 0
    return server


def test_a_run_is_pushed_and_fetched_whole(pushed: HubServer) -> None:
    assert sorted(pushed.repositories["me/bandit"]) == [
        "README.md", "adaptation_curve.png", "checkpoints/iteration-4", "config.json", "contents.json",
        "evaluation.json", "finished.json", "metrics.csv"]  # fmt: skip
    fetched, own = (metarl.evaluate(run, tasks=3, steps=1) for run in ("hub:me/bandit", "run"))
    assert (fetched.returns == own.returns).all()
    assert numbers("runs/hub/me/bandit") == numbers("run")
    assert main(["check", "hub:me/bandit"]) == 0


def test_a_fetched_run_is_continued_to_the_same_numbers(pushed: HubServer) -> None:
    for run in ("hub:me/bandit", "run"):
        assert main(["train", "--resume", run, "--iterations", "6"]) == 0
    assert numbers("hub:me/bandit") == numbers("run")


def test_the_card_shows_the_evaluation(pushed: HubServer) -> None:
    _, metadata, page = pushed.repositories["me/bandit"]["README.md"].decode().split("---\n", 2)
    index = yaml.safe_load(metadata)
    after = metarl.evaluate("run", tasks=3, steps=1).returns[:, -1]
    metric = {"type": "mean_return", "value": round(float(after.mean()), 2)}
    assert index["library_name"] == "metarl"
    assert index["model-index"][0]["results"][0]["metrics"] == [metric]
    assert "metarl evaluate hub:me/bandit" in page
    assert f"| {after.mean():.2f} |" in page
    assert f"| {after.min():.2f} |" in page  # the worst of three tasks


def test_the_best_checkpoint_takes_its_rows_along(server: HubServer, capsys: pytest.CaptureFixture[str]) -> None:
    train(small("run", checkpoint_every=1, validate_every=1, iterations=5))
    best = RunDirectory("run").best_checkpoint()
    assert best is not None
    line = complaint(["push", "run", "me/bandit", "--checkpoint", "best"], capsys)
    advice = line.rpartition("make it with: metarl ")[2]
    assert main(advice.split()) == 0
    assert main(["push", "run", "me/bandit", "--checkpoint", "best"]) == 0
    assert RunDirectory("hub:me/bandit").checkpoint.name == best.name
    assert numbers("hub:me/bandit") == numbers("run")[: len(numbers("hub:me/bandit"))]
    assert f"iteration-{len(numbers('hub:me/bandit'))}" == best.name


def test_a_damaged_run_is_not_kept(pushed: HubServer, capsys: pytest.CaptureFixture[str]) -> None:
    pushed.repositories["me/bandit"]["metrics.csv"] += b"1"
    assert main(["evaluate", "hub:me/bandit"]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == (
        "metarl: hub:me/bandit is damaged: metrics.csv differ from contents.json; nothing was kept"
    )
    assert list(Path("runs/hub/me").iterdir()) == []


def test_only_a_runs_files_are_fetched(pushed: HubServer) -> None:
    pushed.repositories["me/bandit"]["evil.py"] = b"print()"
    main(["evaluate", "hub:me/bandit", "--tasks", "2"])
    assert not Path("runs/hub/me/bandit/evil.py").exists()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("evaluate hub:me/other", "the Hugging Face Hub has no me/other, or it is private"),
        ("evaluate hub:me/empty", "hub:me/empty is not a run that metarl push has written"),
        ("evaluate hub:nothing", "no shipped run is called 'nothing'"),
        ("evaluate hub:", "'hub:' is not hub:NAME, hub:OWNER/NAME or hub:OWNER/NAME@REVISION"),
        ("evaluate hub:../run", "'hub:../run' is not hub:NAME"),
        ("evaluate hub:/run", "'hub:/run' is not hub:NAME"),
        ("evaluate hub:a/b/c", "'hub:a/b/c' is not hub:NAME"),
        ("push nothing me/bandit", "there is no run directory nothing"),
        ("push run bandit", "'bandit' is not OWNER/NAME, your name on the Hub"),
        ("push run me/ban/dit", "'me/ban/dit' is not OWNER/NAME, your name"),
    ],
)
def test_bad_names_are_one_line(words: str, line: str, server: HubServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.repositories["me/empty"] = {"README.md": b"else"}
    assert complaint(words.split(), capsys).startswith(f"metarl: {line}")


def test_a_hub_that_refuses_or_is_gone_is_one_line(
    pushed: HubServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_TOKEN", "wrong")
    assert main(["push", "run", "me/bandit"]) == 1
    assert capsys.readouterr().err.startswith("metarl: the run was not published: ")
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert main(["push", "run", "me/bandit"]) == 1
    assert capsys.readouterr().err.startswith("metarl: the run was not published: ")
    assert main(["evaluate", "hub:me/bandit"]) == 1
    assert capsys.readouterr().err.startswith("metarl: hub:me/bandit cannot be downloaded: ")


def test_shipped_runs_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["hub"]) == 0
    shown = capsys.readouterr().out
    assert (
        "hub:maml-trpo-navigation-2d\n  maml-trpo on navigation-2d (maml), seed 1, 100 iterations: return -37.2"
        in shown
    )
    assert [line for line in shown.splitlines() if line.startswith("hub:")] == [
        f"hub:{name}" for name in shipped_runs()
    ]


@pytest.mark.parametrize("name", shipped_runs())
def test_a_shipped_run_is_whole_and_of_one_state(name: str) -> None:
    directory = RunDirectory(f"hub:{name}")
    _, learner, iteration = metarl.load_run(directory.path)
    evaluation = json.loads(directory.evaluation.read_text())
    assert evaluation["iteration"] == iteration == len(directory.read_metrics())
    assert learner.name == evaluation["learner"]


@pytest.mark.slow
@pytest.mark.parametrize("name", shipped_runs())
def test_the_evaluation_of_a_shipped_run_reproduces(name: str) -> None:
    assert main(["check", f"hub:{name}"]) == 0
