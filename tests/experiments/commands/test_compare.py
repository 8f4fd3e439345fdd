import csv
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import metarl
from metarl.envs.simulation import rendering
from metarl.errors import InputError
from metarl.experiments.commands.compare import CompareOptions, compare, parse_steps
from metarl.experiments.commands.main import main
from metarl.experiments.compare.comparison import Entry, Protocol, measure
from metarl.experiments.compare.figures import Picture
from metarl.experiments.compare.page import make_page
from metarl.experiments.compare.report import record
from metarl.experiments.compare.runs import group_runs, read_runs
from metarl.experiments.compare.statistics import summarize
from metarl.families.family import FAMILIES
from metarl.families.pictures import SIDE
from metarl.numerics.statistics import (
    conditional_value_at_risk,
    interquartile_mean,
    interval,
    mean,
    probability_of_improvement,
    share_interval,
)
from tests.experiments.compared import trained

NAVIGATION = {"horizon": 5}
TITLE = 24  # height of the line above the episodes of a video


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return runs by name; nothing may be changed in them."""
    folder = tmp_path_factory.mktemp("runs")
    found = {}
    for seed in (1, 2):
        found[f"maml-{seed}"] = trained(folder / f"maml-{seed}", "maml-trpo", "navigation-2d", seed, **NAVIGATION)
        found[f"random-{seed}"] = trained(folder / f"random-{seed}", "random", "navigation-2d", seed, **NAVIGATION)
        found[f"grid-{seed}"] = trained(folder / f"grid-{seed}", "random", "gridnavi", seed)
        found[f"dqn-{seed}"] = trained(folder / f"dqn-{seed}", "dqn", "gridnavi", seed, variant="scratch")
        found[f"dir-{seed}"] = trained(folder / f"dir-{seed}", "random", "half-cheetah-dir", seed, horizon=3)
    found["rl2"] = trained(folder / "rl2", "rl2", "gridnavi", 1)
    found["vel"] = trained(folder / "vel", "random", "half-cheetah-vel", 1, horizon=3)
    return found


@pytest.fixture(scope="module")
def four(runs: dict[str, str]) -> tuple[str, ...]:
    return chosen(runs, "maml-1", "maml-2", "random-1", "random-2")


@pytest.fixture(scope="module")
def report(four: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a report on the four, in which nothing may be changed."""
    before = [contents(path) for path in four]
    folder = tmp_path_factory.mktemp("report")
    compare(CompareOptions(four, str(folder), tasks=3, steps="2"), "metarl compare")
    assert [contents(path) for path in four] == before  # it only reads the runs
    return folder


@pytest.fixture
def _plain_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the files of pictures empty: to write them takes most of a report's time."""

    def save(self: Picture, folder: Path) -> list[str]:
        names = [f"{self.name}.svg", f"{self.name}.png"]
        for name in names:
            (folder / name).touch()
        return names

    monkeypatch.setattr(Picture, "save", save)


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def chosen(runs: dict[str, str], *names: str) -> tuple[str, ...]:
    return tuple(runs[name] for name in names)


def rows(path: Path | str) -> list[dict[str, str]]:
    with open(path, newline="") as stream:
        return list(csv.DictReader(stream))


def contents(folder: Path | str) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


def measured(paths: Sequence[str], **protocol: Any) -> Any:
    usual = {"tasks": 4, "steps": {}, "episodes": None, "part": "test", "deterministic": False, "seed": 0}
    return measure(group_runs(read_runs(paths)), Protocol(**{**usual, **protocol}))


def test_the_matrices_are_those_of_evaluate(four: tuple[str, ...], report: Path) -> None:
    found = rows(report / "results.csv")
    assert len(found) == 4 * 3 * 3
    for path in four:
        learner, seed = "maml-trpo" if "maml" in Path(path).name else "random", path[-1]
        curve = metarl.evaluate(path, tasks=3, steps=2)
        own = [row for row in found if (row["learner"], row["seed"]) == (learner, seed)]
        assert [float(row["return"]) for row in own] == curve.returns.flatten().tolist()
        assert [float(row["env_steps"]) for row in own] == curve.env_steps.tolist() * 3
        assert [float(row["goal_1"]) for row in own] == np.repeat(curve.tasks["goal"][:, 1].tolist(), 3).tolist()
        assert [(row["task"], row["step"]) for row in own] == [(str(n), str(k)) for n in range(3) for k in range(3)]


def test_the_statistics_are_those_of_the_matrices(four: tuple[str, ...], report: Path) -> None:
    found = {(row["entry"], row["stage"], row["statistic"]): row for row in rows(report / "summary.csv")}
    matrices = [metarl.evaluate(path, tasks=3, steps=2).returns for path in four]
    ours, others = np.stack(matrices[:2]), np.stack(matrices[2:])
    expected = {
        ("maml-trpo", "before", "mean return"): interval(mean, ours[..., 0]),
        ("maml-trpo", "as in training", "IQM return"): interval(interquartile_mean, ours[..., 1]),
        ("maml-trpo", "last", "mean return"): interval(mean, ours[..., 2]),
        ("maml-trpo", "last", "CVaR 0.95"): interval(conditional_value_at_risk, ours[..., 2]),
        ("maml-trpo", "gain", "IQM return"): interval(interquartile_mean, ours[..., 2] - ours[..., 0]),
        ("random", "last", "probability of improvement"): share_interval(
            probability_of_improvement, others[..., 2], ours[..., 2]
        ),
    }
    for key, values in expected.items():
        assert [float(found[key][name]) for name in ("estimate", "low", "high")] == [float(each) for each in values]
    assert found["random", "last", "probability of improvement"]["over"] == "maml-trpo"
    assert [key for key in found if key[:2] == ("random", "as in training")] == []  # it does not adapt in training
    assert found["maml-trpo", "as in training", "mean return"]["step"] == "1"


def test_the_same_runs_give_the_same_report(four: tuple[str, ...], report: Path) -> None:
    compare(CompareOptions(four, "again", tasks=3, steps="2"), "metarl compare")
    assert contents("again") == contents(report)


def test_the_files_of_a_report(report: Path) -> None:
    pictures = ["adaptation", "profile", "training"]
    pictures += [f"{kind}-{learner}" for kind in ("tasks-goal", "paths") for learner in ("maml-trpo", "random")]
    files = {f"{name}.{kind}" for name in pictures for kind in ("png", "svg")}
    files |= {"behaviour-maml-trpo.gif", "behaviour-random.gif"}
    assert set(contents(report)) == files | {"index.html", "results.csv", "summary.csv", "comparison.json"}
    with Image.open(report / "behaviour-random.gif") as film:
        assert film.width == 2 * SIDE + 8  # before adaptation and after its last step, side by side
    films = (Image.open(report / f"behaviour-{learner}.gif").convert("RGB") for learner in ("maml-trpo", "random"))
    titles = [np.asarray(film)[:TITLE] for film in films]
    assert (titles[0] != titles[1]).any()  # the first line names the learner; the task is the same


@pytest.mark.usefixtures("_plain_pictures")
def test_the_terminal_says_what_was_compared(runs: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    words = [*chosen(runs, "dqn-1", "dqn-2", "grid-1", "grid-2", "rl2"), "--steps", "dqn=1", "--no-videos"]
    assert main(["compare", *words]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "gridnavi (varibad): dqn (scratch), random and rl2"
    assert said[1] == "4 test tasks, actions sampled; 95 % intervals for other seeds and tasks"
    assert said[3].startswith("dqn (scratch), 2 seeds  ")
    assert said[3].endswith("  mean score")
    assert [line.split("  ")[1] for line in said if line.startswith("  ")] == [
        *["before adaptation", "after step 1", "difference"],
        *["before adaptation", "after step 3", "difference"],
        *["before adaptation", "after step 1, as in training", "difference"],
        *["without adaptation, at most", "with full knowledge"],
    ]
    assert said[-2] == "report    report/index.html"
    summary = {(row["entry"], row["stage"], row["statistic"]): row for row in rows("report/summary.csv")}
    score, value = (float(summary["rl2", "last", name]["estimate"]) for name in ("mean score", "mean return"))
    assert FAMILIES["gridnavi"].references["varibad"].full_knowledge == 11.07
    assert score == pytest.approx((value + 0.77) / (11.07 + 0.77))
    (line,) = [line for line in said if line.startswith("  after step 1, as in training")]
    assert line.split()[6:8] == ["15", f"{value:.2f}"]
    assert line.endswith(f"{score:.2f}")


def test_steps_are_chosen_by_learner(runs: dict[str, str]) -> None:
    found = measured(chosen(runs, "dqn-1", "grid-1", "rl2"), steps=parse_steps("2,dqn=1"))
    assert {entry.label: entry.returns.shape for entry in found.entries} == {
        "dqn (scratch)": (1, 4, 2),
        "random": (1, 4, 3),
        "rl2": (1, 4, 3),
    }


@pytest.mark.parametrize(
    ("text", "steps"), [(None, {}), ("3", {"": 3}), ("dqn=50", {"dqn": 50}), ("3,dqn=50", {"": 3, "dqn": 50})]
)
def test_steps_are_read(text: str | None, steps: dict[str, int]) -> None:
    assert parse_steps(text) == steps


@pytest.mark.parametrize("text", ["", "x", "-1", "3,4", "²", "dqn=", "dqn=1.5", "dqn=1,dqn=2"])
def test_other_steps_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="--steps takes a number"):
        parse_steps(text)


@pytest.mark.usefixtures("_plain_pictures")
def test_the_protocol_is_that_of_the_options(runs: dict[str, str]) -> None:
    options = CompareOptions(
        chosen(runs, "maml-1"), tasks=3, part="ood", steps="1", episodes=2, deterministic=True, seed=5, videos=False
    )
    said = compare(options, "")
    assert "3 ood tasks, the policy's mode" in said
    curve = metarl.evaluate(runs["maml-1"], 3, 1, 2, 5, part="ood", deterministic=True)
    assert [float(row["return"]) for row in rows("report/results.csv")] == curve.returns.flatten().tolist()
    page = Path("report/index.html").read_text()
    assert "outside the distribution of training" in page
    assert "from the policy&#39;s mode" in page


def test_references_are_for_tasks_of_the_distribution(runs: dict[str, str]) -> None:
    assert measured(chosen(runs, "grid-1")).reference is not None
    assert measured(chosen(runs, "grid-1"), part="ood").reference is None


def test_intervals_are_for_other_seeds_alone_where_there_are_no_other_tasks(runs: dict[str, str]) -> None:
    found = measured(chosen(runs, "dir-1", "dir-2"), steps={"": 1})
    assert (found.over, found.others) == ("seeds", "seeds, the tasks being all that there are")
    (entry,) = found.entries
    measure_of = summarize(found).find(entry, "last", "mean return")
    assert measure_of is not None
    assert (measure_of.low, measure_of.high) == tuple(
        float(end) for end in interval(mean, entry.returns[..., -1], over="seeds")[1:]
    )
    assert measured(chosen(runs, "dir-1"), steps={"": 1}).others == "tasks, each learner having one seed"
    assert measured(chosen(runs, "grid-1", "grid-2")).over == "both"  # four of many
    assert measured(chosen(runs, "grid-1", "grid-2"), tasks=1).others == "seeds, on this one task"


def test_success_is_compared_where_it_is_reported(runs: dict[str, str]) -> None:
    found = measured(chosen(runs, "maml-1", "maml-2", "random-1"))
    entries = [Entry(each.label, each.runs, [with_success(curve) for curve in each.curves]) for each in found.entries]
    found = type(found)(entries, found.protocol)
    summary = summarize(found)
    success = summary.find(entries[0], "last", "success")
    assert success is not None
    assert 0 <= success.low < success.estimate == 0.5 < success.high <= 1
    page = make_page(found, summary, "", dict.fromkeys(["curves", "behaviour", "paths", "tasks", "training"], ()), "")
    (table,) = [table for section in page.sections for table in section.tables if table.sortable]
    assert table.columns[-1] == "success at last"
    assert [row.cells[-1].text for row in table.rows] == ["1.00", "0.00"] * 4


def with_success(curve: Any) -> Any:
    rates = np.zeros_like(curve.returns)
    rates[::2] = 1.0
    return type(curve)(**{**vars(curve), "success": rates})


@pytest.mark.usefixtures("_plain_pictures")
def test_the_record_states_what_was_compared(runs: dict[str, str]) -> None:
    compare(CompareOptions(chosen(runs, "grid-2", "grid-1"), steps="1", videos=False), "metarl compare ...")
    content = json.loads(Path("report/comparison.json").read_text())
    assert content["command"] == "metarl compare ..."
    assert (content["family"], content["preset"]) == ("gridnavi", "varibad")
    assert (content["tasks"], content["part"]) == (4, "test")
    assert content["split_hash"] == json.loads((Path(runs["grid-1"]) / "config.json").read_text())["split_hash"]
    (learner,) = content["learners"]
    assert [run["seed"] for run in learner["runs"]] == [1, 2]
    assert (learner["steps"], learner["episodes_per_step"]) == (1, 3)
    assert sorted([*content["files"], "comparison.json"]) == sorted(contents("report"))
    assert record(measured(chosen(runs, "grid-1")), "")["actions"] == "sampled"


@pytest.mark.usefixtures("_plain_pictures")
def test_beliefs_are_drawn_where_there_are_any(runs: dict[str, str], tmp_path: Path) -> None:
    varibad = trained(tmp_path / "run", "varibad", "gridnavi", 1, encoder_size=8, model_updates=1)
    main(["compare", varibad, runs["rl2"], "--no-videos", "--out", str(tmp_path / "report")])
    assert {path.name for path in (tmp_path / "report").glob("beliefs-*")} == {
        "beliefs-varibad.png",
        "beliefs-varibad.svg",
    }
    assert "varibad: the reward that it expects of every cell" in (tmp_path / "report/index.html").read_text()


@pytest.mark.usefixtures("_plain_pictures")
def test_a_report_takes_the_place_of_a_report(runs: dict[str, str], report: Path) -> None:
    shutil.copytree(report, "report")
    Path("report/notes.txt").write_text("mine")
    compare(CompareOptions(chosen(runs, "maml-1"), tasks=2, videos=False), "")
    assert Path("report/notes.txt").read_text() == "mine"
    left = set(contents("report"))
    assert not {name for name in left if "random" in name or name.endswith(".gif")}
    content = json.loads(Path("report/comparison.json").read_text())["files"]
    assert {*content, "notes.txt", "comparison.json"} == left


@pytest.mark.usefixtures("_plain_pictures")
def test_without_opengl_the_page_says_so(runs: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MUJOCO_GL", "DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(rendering, "find_library", lambda name: None)
    compare(CompareOptions(chosen(runs, "vel"), tasks=2, steps="1"), "")
    page = Path("report/index.html").read_text()
    assert "No videos: MuJoCo cannot render on this machine" in page
    assert "tasks-random.png" in contents("report")  # velocity is a number


@pytest.mark.parametrize(
    ("names", "words", "complaint"),
    [
        ([], "", "compare needs the directories of the runs, one or more"),
        (["nowhere"], "", "there is no run directory nowhere"),
        (["maml-1", "maml-1"], "", "is given twice; give each run once"),
        (["maml-1", "grid-1"], "", "family is navigation-2d in the first and gridnavi in the second"),
        (["maml-1", "long"], "", "horizon is 5 in the first and 6 in the second"),
        (["maml-1", "other-split"], "", "split_seed is 0 in the first and 3 in the second"),
        (["bandit", "bandit-k10"], "", "preset is k5 in the first and k10 in the second"),
        (["maml-1", "copy"], "", "are both maml-trpo of seed 1 with the same settings; intervals need"),
        (["broken"], "", "has lost its checkpoints"),
        (["maml-1"], "--checkpoint best --steps x", "--steps takes a number"),
        (["maml-1"], "--steps dqn=3", "--steps names dqn, which is not compared; the learners are maml-trpo"),
        (["bandit"], "--part ood", "bandit has no out-of-distribution tasks (ood)"),
        (["maml-1"], "--part best", "invalid choice 'best'"),
        (["maml-1"], "--tasks 0", "the number of tasks must be at least 1, not 0"),
        (["maml-1", "random-1", "random-2"], "--tasks 1", "an interval needs 2 tasks, or 2 seeds of every learner"),
        (
            ["maml-1", "few"],
            "--part train --tasks 6",
            "has 6 train tasks, and {tmp}/few has 3; use --tasks 3",
        ),
        (["maml-1"], "--episodes 0", "a comparison needs episodes >= 1, not 0"),
        (["maml-1"], "--device toaster", "unknown device 'toaster'"),
        (["maml-1"], "--out occupied", "occupied contains files that are not a report of metarl compare"),
        (["maml-1"], "--out file", "cannot write a report to file"),
        (["maml-1"], "--out {maml-1}/report", "which must not be changed; choose another --out"),
        (["maml-1"], "--out {maml-1}", "which must not be changed; choose another --out"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(
    names: list[str],
    words: str,
    complaint: str,
    runs: dict[str, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    made = {
        "long": lambda path: trained(path, "maml-trpo", "navigation-2d", 1, horizon=6),
        "other-split": lambda path: trained(path, "maml-trpo", "navigation-2d", 1, split_seed=3, **NAVIGATION),
        "copy": lambda path: trained(path, "maml-trpo", "navigation-2d", 1, **NAVIGATION),
        "few": lambda path: trained(path, "maml-trpo", "navigation-2d", 2, train_tasks=3, **NAVIGATION),
        "bandit": lambda path: trained(path, "random", "bandit", 1),
        "bandit-k10": lambda path: trained(path, "random", "bandit", 1, preset="k10"),
        "broken": broken,
    }
    paths = [runs[name] if name in runs else made[name](tmp_path / name) if name in made else name for name in names]
    (tmp_path / "occupied").mkdir()
    (tmp_path / "occupied" / "thesis.tex").write_text("mine")
    (tmp_path / "file").write_text("mine")
    capsys.readouterr()
    before = contents(tmp_path), [contents(path) for path in runs.values()]
    assert main(["compare", *paths, *words.format(**runs).split()]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("metarl: ")
    assert said.err.count("\n") == 1
    assert complaint.format(tmp=tmp_path) in said.err
    assert (contents(tmp_path), [contents(path) for path in runs.values()]) == before
    assert not (tmp_path / "report").exists()


def broken(path: Path) -> str:
    trained(path, "random", "bandit", 1)
    shutil.rmtree(path / "checkpoints")
    return str(path)
