"""The manual matches the code: its Python blocks run, and the options, settings and files it names exist."""

import dataclasses
import json
import re
import sys
from collections.abc import Iterable, Iterator
from itertools import takewhile
from pathlib import Path
from types import ModuleType
from typing import Any

import gymnasium
import pytest

import metarl
from benchmarks import metaworld_sampling
from benchmarks.tables import fill_page
from metarl.agents.gradient.gradient_learner import AdamConfig, GradientConfig
from metarl.agents.in_context.memories.memory import MEMORIES
from metarl.envs.wrapped.gymnasium_adapter import GymnasiumFamily
from metarl.experiments.commands.check import CheckOptions
from metarl.experiments.commands.collect import CollectOptions
from metarl.experiments.commands.compare import CompareOptions
from metarl.experiments.commands.continual import ContinualOptions
from metarl.experiments.commands.evaluate import EvaluateOptions
from metarl.experiments.commands.main import COMMANDS, main, usage
from metarl.experiments.commands.push import PushOptions
from metarl.experiments.commands.render import RenderOptions
from metarl.experiments.commands.seeds import SEEDS
from metarl.experiments.commands.serve import ServeOptions
from metarl.experiments.commands.show_family import ShowOptions
from metarl.experiments.commands.train import FROM, RESUME_IF_THERE, ResumeOptions
from metarl.experiments.learning import curve, steps_to_match, tables
from metarl.experiments.learning.comparisons import COMPARISONS
from metarl.experiments.published import MODULES
from metarl.experiments.tools import belief_pictures, few_shot, metaworld_evaluation, over_http
from metarl.families.family import FAMILIES, make_family
from metarl.families.family_settings import settable
from metarl.learning.learner import LEARNERS
from metarl.learning.trust_region import TrustRegionConfig
from metarl.networks.encoders import ENCODERS
from metarl.run.config import RunConfig
from metarl.run.labels import RunLabels
from metarl.sampling.changing_tasks import ChangingConfig
from metarl.sampling.task_source import TASK_SOURCES, PlrConfig, StreamConfig

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
TRAIN_CONFIGS = (
    RunConfig,
    PlrConfig,
    StreamConfig,
    ChangingConfig,
    RunLabels,
    TrustRegionConfig,
    *(learner.config_class for learner in LEARNERS.values()),
)
# The commands of the manual, by their first words, with the dataclasses that hold their options.
OPTIONS: dict[tuple[str, ...], tuple[type, ...]] = {
    ("metarl", "train"): TRAIN_CONFIGS,
    ("metarl", "train", "--published"): TRAIN_CONFIGS,
    ("metarl", "train", "--config"): TRAIN_CONFIGS,
    ("metarl", "train", "--resume"): (ResumeOptions,),
    ("metarl", "runs"): (),
    ("metarl", "evaluate"): (EvaluateOptions,),
    ("metarl", "reproduce"): (),
    ("metarl", "hub"): (),
    ("metarl", "push"): (PushOptions,),
    ("metarl", "check"): (CheckOptions,),
    ("metarl", "collect"): (CollectOptions,),
    ("metarl", "compare"): (CompareOptions,),
    ("metarl", "continual"): (ContinualOptions, *TRAIN_CONFIGS),
    ("metarl", "render"): (RenderOptions,),
    ("metarl", "serve"): (ServeOptions,),
    ("metarl", "families"): (),
    ("metarl", "families", "show"): (ShowOptions,),
    ("metarl", "learners"): (),
    ("metarl", "completion"): (),
    ("python", "experiments/learning/curve.py"): (curve.Options,),
    ("python", "experiments/learning/steps_to_match.py"): (steps_to_match.Options,),
    ("python", "experiments/learning/tables.py"): (tables.Options,),
    ("python", "experiments/tools/belief_pictures.py"): (belief_pictures.Options,),
    ("python", "experiments/tools/demo.py"): (),
    ("python", "experiments/tools/few_shot.py"): (few_shot.Options,),
    ("python", "experiments/tools/metaworld_evaluation.py"): (metaworld_evaluation.Options,),
    ("python", "experiments/tools/metrics_table.py"): (),
    ("python", "experiments/tools/over_http.py"): (over_http.Options,),
    ("python", "experiments/tools/tiny_language_model.py"): (),
}
# Options of ``metarl train`` that are no settings of a run.
LAUNCHING = {RESUME_IF_THERE, FROM, SEEDS, "--devices", "--max-restarts"}
# Registries of the names after them.
NAMES: dict[tuple[str, ...], tuple[Iterable[str], ...]] = {
    ("metarl", "train"): (LEARNERS, FAMILIES),
    ("metarl", "continual"): (LEARNERS, FAMILIES),
    ("metarl", "train", "--published"): (MODULES,),
    ("metarl", "families", "show"): (FAMILIES,),
    ("python", "experiments/learning/curve.py"): (COMPARISONS,),
    ("python", "experiments/learning/steps_to_match.py"): (COMPARISONS,),
}
# The page of each learner, and of what several of them share.
LEARNER_PAGES = ("maml-trpo", "maml-ppo", "maml-vpg", "reptile", "rl2", "varibad", "pearl", "recurrent-sac", "dqn")
LEARNER_PAGES += ("amago", "dpt", "algorithm-distillation", "language")
SETTINGS = [(LEARNERS[name].config_class, name) for name in LEARNER_PAGES]
SETTINGS += [(LEARNERS["metric"].config_class, "metric-task-inference")]
SETTINGS += [(TrustRegionConfig, "maml-trpo"), (GradientConfig, "adaptation"), (AdamConfig, "adaptation")]


def page_id(page: Path) -> str:
    return str(page.relative_to(ROOT).with_suffix(""))


def text(name: str) -> str:
    return (ROOT / "docs" / f"{name}.md").read_text()


def sections() -> dict[str, str]:
    """Return the sections of all pages by their headings."""
    found = [section for page in PAGES for section in page.read_text().split("\n## ")[1:]]
    return {section.splitlines()[0].strip(): section for section in found}


def preset_table(section: str) -> list[dict[str, str]]:
    """Return the rows of the section's first table whose first column is ``preset``, by column."""
    lines = section.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("| preset |"))
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in takewhile(bool, lines[start:])]
    return [dict(zip(rows[0], row, strict=True)) for row in rows[2:]]


def blocks(page: Path, language: str) -> list[str]:
    """Return the fenced blocks of a language, each with the page's lines before it left blank, for line numbers."""
    content = page.read_text()
    found = re.finditer(rf"^```{language}\n(.*?)^```", content, re.MULTILINE | re.DOTALL)
    return ["\n" * content[: match.start(1)].count("\n") + match[1] for match in found]


def commands(page: Path) -> list[list[str]]:
    """Return the words of every metarl command and experiment script in the page's shell blocks."""
    lines = "\n".join(blocks(page, "bash")).replace("\\\n", " ").splitlines()
    lines += re.findall(r"^ {4}(metarl .*)$", page.read_text(), re.MULTILINE)  # an indented block is one of commands
    words = [line.split("#")[0].removeprefix(".venv/bin/").split() for line in lines]
    return [line for line in words if line[:1] == ["metarl"] or line[:1] == ["python"]]


def own_names(page: Path) -> set[str]:
    """Return the names of families and learners that the page itself defines."""
    return set(re.findall(r'^    name: ClassVar\[str\] = "(.*)"$', page.read_text(), re.MULTILINE))


def options(*configs: type) -> set[str]:
    """Return the command-line options of dataclasses; nested ones are left to be named themselves."""
    found = set()
    for field in (field for config in configs for field in dataclasses.fields(config)):
        option = field.name.replace("_", "-")
        found |= {f"--{option}", f"--no-{option}"} if field.type is bool else {f"--{option}"}
    return found | {"--help"}


@pytest.fixture
def registries() -> Iterator[None]:
    """Forget, after the test, what a page registered."""
    tables: list[dict[str, Any]] = [FAMILIES, LEARNERS, MEMORIES, ENCODERS, TASK_SOURCES, gymnasium.registry]
    saved = [dict(table) for table in tables]
    yield
    for table, before in zip(tables, saved, strict=True):
        table.clear()
        table.update(before)


@pytest.fixture
def short_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let runs be shorter than the pages show them, by the same code."""
    check = RunConfig.__post_init__

    def shorten(self: RunConfig) -> None:
        for name, most in {"iterations": 2, "tasks_per_batch": 4, "episodes_per_task": 4}.items():
            object.__setattr__(self, name, min(getattr(self, name), most))
        check(self)

    monkeypatch.setattr(RunConfig, "__post_init__", shorten)


@pytest.mark.manual
@pytest.mark.usefixtures("registries", "short_runs")
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=page_id)
def test_python_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    module = ModuleType("documented")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    for block in blocks(page, "python"):
        exec(compile(block, page, "exec"), vars(module))


def entry(words: list[str]) -> tuple[str, ...]:
    """Return the entry of ``OPTIONS`` that a command is: the longest that it begins with."""
    return max((known for known in OPTIONS if known == tuple(words[: len(known)])), key=len, default=())


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_commands_and_their_options_exist(page: Path) -> None:
    for words in commands(page):
        command, script = " ".join(words), ROOT / words[1]
        if words[0] == "python":
            assert script.exists(), command
        if script.parent.name == "benchmarks":  # they have no options
            continue
        known = entry(words)
        assert known, f"{command} is in no entry of OPTIONS"
        given = {word.split("=")[0] for word in words[len(known) :] if word.startswith("--")}
        if known == ("metarl", "train"):  # a family that the page itself defines has the fields of its parent
            family = FAMILIES.get(words[3], GymnasiumFamily)
            given -= {f"--family.{name.replace('_', '-')}" for name in settable(family)}
        given -= LAUNCHING
        assert given <= options(*OPTIONS[known]), f"{command}: unknown {sorted(given - options(*OPTIONS[known]))}"


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_what_commands_name_exists(page: Path) -> None:
    own = own_names(page)
    for words in commands(page):
        known = entry(words)
        for word, table in zip(words[len(known) :], NAMES.get(known, ()), strict=False):
            assert word.rpartition(":")[2] in {*table, *own}, " ".join(words)


def test_every_command_of_metarl_is_checked() -> None:
    assert {known[1] for known in OPTIONS if known[0] == "metarl"} == set(COMMANDS)


def test_the_manual_shows_the_usage() -> None:
    assert f"```text\n{usage()}\n```" in text("command-line")


@pytest.mark.parametrize(("config", "page"), SETTINGS)
def test_settings_are_in_the_manual_with_their_defaults(config: type, page: str) -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| ([^|]*) \|", text(page).split("## Metrics")[0], re.MULTILINE))
    for field in dataclasses.fields(config):
        if field.name != "trust_region":
            assert rows[field.name] == str(field.default)


@pytest.mark.parametrize("name", FAMILIES)
def test_families_are_in_the_manual_with_their_presets(name: str) -> None:
    family, rows = FAMILIES[name], preset_table(sections()[name])
    assert f"| `{name}` | `{family.env_id}` |" in text("families")
    assert [row["preset"] for row in rows] == [f"`{preset}`" for preset in family.presets]
    for preset, row in zip(family.presets, rows, strict=True):
        shown = {column.strip("`"): cell for column, cell in row.items() if column.startswith("`")}
        made = make_family(name, preset)
        assert {field: str(made.settings()[field]) for field in shown} == shown
        assert row.get("observation", size := f"`{list(made.observation_space.shape)}`") == size
        assert set(family.presets[preset]) <= set(shown)  # what a preset sets is shown


def test_the_files_and_keys_that_a_run_leaves_are_in_the_manual(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    small = RunConfig(iterations=1, tasks_per_batch=2, episodes_per_task=2, horizon=5, out=str(tmp_path / "run"))
    run = metarl.train(metarl.TrainConfig("maml-trpo", "navigation-2d", small))
    assert main(["evaluate", str(run.path), "--tasks", "2", "--steps", "1"]) == 0
    rows = re.findall(r"^\| (`.*?) \|", text("first-run"), re.MULTILINE)
    explained = set(re.findall(r"`([\w./]+)`", " ".join(rows)))
    assert {path.name for path in run.path.iterdir()} <= explained
    assert set(run.read_config()) <= explained
    assert set(json.loads(run.evaluation.read_text())) <= explained


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_tables_of_benchmarks_are_those_of_the_committed_files(page: Path) -> None:
    assert page.read_text() == fill_page(page.read_text()), "python -m benchmarks.tables"


def test_every_page_is_in_the_table_of_contents() -> None:
    listed = re.findall(r"^ +- .*: (.*\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    notebooks = [path.with_suffix(".md") for path in DOCS.glob("*.ipynb")]
    assert sorted(listed) == sorted(str(path.relative_to(DOCS)) for path in [*DOCS.rglob("*.md"), *notebooks])


def test_pictures_are_small_and_shown() -> None:
    shown = re.findall(r"!\[[^]]+\]\([./]*(?:docs/)?(pictures/[^)]*)\)", "\n".join(page.read_text() for page in PAGES))
    files = list((DOCS / "pictures").rglob("*.*"))
    assert sorted(set(shown)) == sorted(str(path.relative_to(DOCS)) for path in files)
    sizes = {path.name: path.stat().st_size for path in files}
    assert sizes.pop("cheetah.webp") < 1_500_000  # the one on the front page
    assert max(sizes.values()) < 150_000


def test_the_gallery_shows_every_family() -> None:
    shown = re.findall(r"!\[([\w-]+): [^]]+\]\(pictures/gallery/([\w-]+)\.webp\)", text("gallery"))
    assert sorted(shown) == sorted((name, name) for name in FAMILIES)


def test_every_learner_has_a_page() -> None:
    listed = re.findall(r"^\| (`.*?) \|.*\]\([\w-]+\.md\) \|$", text("learners"), re.MULTILINE)
    assert sorted(re.findall(r"`([\w-]+)`", " ".join(listed))) == sorted(LEARNERS)


@pytest.mark.parametrize("page", metaworld_sampling.PAGES, ids=lambda page: page.name)
def test_the_speed_of_meta_worlds_is_that_of_the_file(page: Path) -> None:
    assert page.read_text() == metaworld_sampling.fill_page(page.read_text(), metaworld_sampling.RESULTS)
