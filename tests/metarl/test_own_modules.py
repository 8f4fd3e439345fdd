"""A family and a learner of a user's own module are named ``module:name``, also by processes that come later."""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import gymnasium
import pytest

from metarl.errors import InputError
from metarl.evaluation.evaluate import evaluate, load_run
from metarl.experiments.commands.main import main
from metarl.families.family import FAMILIES, make_family
from metarl.learning.learner import LEARNERS
from metarl.run.config import RunConfig, TrainConfig
from metarl.tracking.tracking import name_run
from metarl.training.train import resume, train
from tests.forked import Child

OWN_MODULE = '''
from dataclasses import dataclass
from typing import ClassVar

from metarl.agents.baselines.random_policy import RandomPolicy
from metarl.envs.basic.bandit import Bandit
from metarl.families.family import register_family
from metarl.learning.learner import register_learner


@register_family
@dataclass(frozen=True)
class Levers(Bandit):
    """Levers of a user's own."""

    name: ClassVar[str] = "levers"
    env_id: ClassVar[str] = "own/Levers-v0"


@register_learner
class Guess(RandomPolicy):
    """A learner of a user's own."""

    name: ClassVar[str] = "guess"
'''
LEARNER, FAMILY = "own_things:guess", "own_things:levers"
SMALL = ["--iterations", "1", "--tasks-per-batch", "2", "--episodes-per-task", "2", "--track", "disabled"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return a folder with the user's module, which this process can import; forget what it registers afterwards."""
    (tmp_path / "own_things.py").write_text(OWN_MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("own_things", None)
    FAMILIES.pop("levers", None)
    LEARNERS.pop("guess", None)
    gymnasium.registry.pop("own/Levers-v0", None)


def use_later(run: Path) -> int:
    assert "own_things" not in sys.modules
    sys.path.append(os.getcwd())  # as Python's interpreter does
    resume(run, iterations=2)
    print(evaluate(run, tasks=2, steps=1).returns.shape)
    return main(["families", "show", FAMILY])


def test_the_command_line_takes_the_names_and_so_do_later_processes(folder: Path) -> None:
    done = Child(main, ["train", LEARNER, FAMILY, *SMALL], folder=folder).ended()
    assert done.returncode == 0, done.stderr
    run = folder / "runs" / "guess-levers-seed1"
    content = json.loads((run / "config.json").read_text())
    assert (content["learner"], content["family"]) == (LEARNER, FAMILY)
    done = Child(use_later, run, folder=folder).ended()
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("(2, 2)\nlevers  (own/Levers-v0)\n  Levers of a user's own.")


def test_paths_and_groups_have_the_own_names(folder: Path) -> None:
    config = TrainConfig(LEARNER, FAMILY)
    assert (config.learner_name, config.family_name) == ("guess", "levers")
    assert name_run(config)[0] == "runs/guess-levers-seed1"
    assert config.group == "guess-levers-k5"
    assert make_family(FAMILY).name == "levers"


def test_a_run_whose_module_is_gone_says_so_in_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = RunConfig(iterations=1, tasks_per_batch=2, episodes_per_task=2, out=str(folder / "run"), track="disabled")
    run = train(TrainConfig(LEARNER, FAMILY, small))
    assert load_run(run.path)[2] == 1
    monkeypatch.setitem(sys.modules, "own_things", None)
    with pytest.raises(
        InputError, match=r"run: cannot import 'own_things' for the learner 'own_things:guess' .*run in its"
    ):
        load_run(run.path)
