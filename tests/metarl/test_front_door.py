"""``import metarl`` registers everything and loads no package that it does not need yet."""

import json
from pathlib import Path

import pytest
import torch

import metarl
from metarl.families.family import FAMILIES, Dynamics, TaskFamily
from metarl.learning.learner import LEARNERS
from metarl.run.config import RunConfig, TrainConfig
from tests.runs import run_python

HEAVY = {
    "alembic",
    "av",
    "fastapi",
    "httpx",
    "matplotlib",
    "metaworld",
    "mujoco",
    "mujoco_warp",
    "scipy",
    "sqlalchemy",
    "sqlmodel",
    "stable_baselines3",
    "tensorboard",
    "uvicorn",
    "wandb",
    "warp",
}
IMPORT = """
import json, sys
import gymnasium
import metarl
assert "torch" not in sys.modules
gymnasium.make("metarl/Bandit-v0").reset()
from metarl.families.family import FAMILIES
from metarl.learning.learner import LEARNERS
print(json.dumps([sorted({name.partition(".")[0] for name in sys.modules}), list(FAMILIES), list(LEARNERS)]))
"""


def test_importing_metarl_registers_everything_and_loads_no_torch_and_its_use_no_heavy_package(tmp_path: Path) -> None:
    done = run_python("-c", IMPORT, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    modules, families, learners = json.loads(done.stdout)
    assert HEAVY & set(modules) == set()
    assert {"half-cheetah-vel", "gridnavi", "metaworld-ml1"} <= set(families)
    assert {"dqn", "maml-trpo", "optimal"} <= set(learners)


def test_modules_are_imported_when_they_are_used() -> None:
    assert metarl.worlds.vector_env.TaskVectorEnv.__name__ == "TaskVectorEnv"
    with pytest.raises(AttributeError, match="module 'metarl' has no attribute 'evalute'"):
        metarl.evalute  # noqa: B018


def test_all_that_the_front_door_names_is_there() -> None:
    assert sorted(metarl.__all__) == metarl.__all__
    assert all(hasattr(metarl, name) for name in metarl.__all__)


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_a_config_makes_no_world(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: TaskFamily, num_envs: int, device: torch.device) -> Dynamics:
        raise AssertionError("a world was made")

    monkeypatch.setattr(FAMILIES[name], "dynamics", refuse)
    assert TrainConfig("random", name, RunConfig(horizon=1)).family in FAMILIES
    assert "random" in LEARNERS
