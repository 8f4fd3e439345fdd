import pickle
import sys
from dataclasses import dataclass
from typing import Any, ClassVar

import metaworld
import mujoco
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode
from metaworld.policies import ENV_POLICY_MAP
from metaworld.sawyer_xyz_env import SawyerMocapBase
from tensordict import TensorDict

from metarl.envs.manipulation import package
from metarl.envs.manipulation.benchmark_tasks import benchmark_tasks
from metarl.envs.manipulation.package import environments, load_package
from metarl.envs.wrapped.meta_world import (
    MetaWorldCustom,
    MetaWorldFamily,
    MetaWorldML1,
    MetaWorldML10,
    MetaWorldML25,
    MetaWorldML45,
)
from metarl.errors import InputError
from metarl.experiments.commands.main import main
from metarl.families.family import TaskFamily, make_family
from metarl.families.splits import TaskSplit
from metarl.run.config import TrainConfig
from metarl.worlds.vector_env import TaskVectorEnv

load_package()
NAMES = [name for name, _ in environments()]


@dataclass(frozen=True)
class ShownML10(MetaWorldML10):
    """ML10 whose goal can be seen, as the package's scripted policies need it."""

    partially_observable: ClassVar[bool] = False


def worlds(family: TaskFamily, tasks: TensorDict) -> TaskVectorEnv:
    env = TaskVectorEnv(family, len(tasks), autoreset_mode=AutoresetMode.DISABLED)
    env.set_tasks(tasks)
    return env


def names_in(tasks: TensorDict) -> list[str]:
    return [NAMES[index] for index in tasks["environment"].tolist()]


def vectors(tasks: list[Any]) -> list[tuple[str, list[float]]]:
    return [(task.env_name, pickle.loads(task.data)["rand_vec"].tolist()) for task in tasks]  # noqa: S301


def placements(tasks: TensorDict) -> list[tuple[str, list[float]]]:
    return list(zip(names_in(tasks), tasks["placement"].tolist(), strict=True))


def theirs(task: TensorDict, hidden: bool = True, reward: str = "v2") -> Any:
    """Return the package's own environment with a task ``[]``."""
    name, kind = environments()[int(task["environment"])]
    env = kind(reward_function_version=reward)
    vector = task["placement"][: env._random_reset_space.low.size].numpy()
    data = pickle.dumps({"rand_vec": vector, "env_cls": kind, "partially_observable": hidden})
    env.set_task(metaworld.types.Task(env_name=name, data=data))
    return env


def test_tasks_are_those_of_the_package() -> None:
    family = MetaWorldML1(env_name="push-v3", benchmark_seed=4)
    own, package = family.own_split(), metaworld.ML1("push-v3", seed=4)
    assert placements(torch.cat([own["train"], own["validation"]])) == vectors(package.train_tasks)
    assert placements(own["test"]) == vectors(package.test_tasks)


@pytest.mark.slow
@pytest.mark.parametrize("family", [MetaWorldML10(), MetaWorldML25(), MetaWorldML45()])
def test_all_tasks_of_a_benchmark_are_those_of_the_package(family: MetaWorldFamily) -> None:
    own, package = family.own_split(), getattr(metaworld, family.benchmark)(seed=0)
    drawn = {"train": torch.cat([own["train"], own["validation"]]), "test": own["test"]}
    for part, tasks in drawn.items():
        expected = vectors(getattr(package, f"{part}_tasks"))
        padded = [(name, [*vector, *[0.0] * (6 - len(vector))]) for name, vector in expected]
        assert sorted(placements(tasks)) == sorted(padded)


def test_parts_share_no_task_and_spread_over_the_environments() -> None:
    family = MetaWorldML10()
    own = family.own_split()
    assert {part: len(tasks) for part, tasks in own.items()} == {"train": 400, "validation": 100, "test": 250}
    training, test = (set(classes) for classes in metaworld.env_dict.ML10_V3.values())
    assert set(names_in(own["train"][:10])) == set(names_in(own["validation"][:10])) == training
    assert set(names_in(own["test"][:5])) == test
    rows = [str(placement) for tasks in own.values() for placement in placements(tasks)]
    assert len(set(rows)) == len(rows)
    assert len(TaskSplit(family).held_out_tasks("test", 40)) == 40


def test_drawing_the_tasks_leaves_numpys_global_stream_alone_and_repeats() -> None:
    before = np.random.get_state()[1].copy()  # type: ignore[index,union-attr] # noqa: NPY002
    first = MetaWorldML1().own_split()["test"]
    benchmark_tasks.cache_clear()
    assert (MetaWorldML1().own_split()["test"] == first).all()
    assert np.array_equal(np.random.get_state()[1], before)  # noqa: NPY002
    assert (MetaWorldML1(benchmark_seed=1).own_split()["test"]["placement"] != first["placement"]).any()


@pytest.mark.parametrize("preset", ["batched", "sync", "async", "v1"])
def test_worlds_move_as_the_packages_own(preset: str) -> None:
    family = make_family("metaworld-ml10", preset, horizon=30)
    tasks = family.own_split()["test"][:3]
    ours = worlds(family, tasks)
    ours.reset(seed=0)
    observations, _ = ours.reset(seed=1)  # An episode does not depend on those before.
    packages = [theirs(task, reward="v1" if preset == "v1" else "v2") for task in tasks]
    starts = np.stack([env.reset()[0] for env in packages])
    assert np.array_equal(observations.numpy(), starts.astype(np.float32))
    stream = np.random.default_rng(0)
    for _ in range(30):
        actions = stream.uniform(-1, 1, (3, 4)).astype(np.float32)
        observations, rewards, terminated, truncated, info = ours.step(torch.from_numpy(actions))
        for world, env in enumerate(packages):
            observation, reward, _, _, terms = env.step(actions[world])
            assert np.array_equal(observations[world].numpy(), observation.astype(np.float32))
            assert rewards[world].item() == pytest.approx(float(reward), rel=1e-6, abs=1e-6)
            assert info["success"][world].item() == terms["success"]
    assert (observations[:, -3:] == 0).all()
    assert (terminated.any().item(), truncated.all().item()) == (False, True)
    ours.close()


def test_success_is_a_number_of_every_step() -> None:
    env = worlds(MetaWorldML1(horizon=3), MetaWorldML1().own_split()["train"][:2])
    env.reset(seed=0)
    info = env.step(torch.zeros(2, 4))[4]
    assert (info["success"].dtype, info["success"].tolist()) == (torch.float32, [0.0, 0.0])


def test_a_task_can_be_made_by_hand() -> None:
    family = make_family("metaworld-ml1", horizon=3)
    task = family.make_task({"environment": NAMES.index("reach-v3"), "placement": [0, 0.6, 0.02, 0, 0.85, 0.2]})
    env = worlds(family, task)
    env.reset(seed=0)
    assert env.step(torch.zeros(1, 4))[1].item() > 0


def test_own_environments_are_a_benchmark_of_their_own() -> None:
    own = MetaWorldCustom(train_envs=("reach-v3", "push-v3"), test_envs=("door-open-v3",)).own_split()
    assert {part: sorted(set(names_in(tasks))) for part, tasks in own.items()} == {
        "train": ["push-v3", "reach-v3"],
        "validation": ["push-v3", "reach-v3"],
        "test": ["door-open-v3"],
    }
    assert [len(tasks) for tasks in own.values()] == [80, 20, 50]


@pytest.mark.slow
def test_scripted_policies_succeed_as_often_as_in_the_packages_own_environments() -> None:
    tasks = ShownML10().own_split()["train"]
    ours, others = [], []
    for name in metaworld.env_dict.ML10_V3["train"]:
        chosen = tasks[tasks["environment"] == NAMES.index(name)][:5]
        ours += scripted(name, chosen)
        others += [scripted_in_the_package(name, task) for task in chosen]
    assert ours == others
    assert sum(ours) >= 40


def scripted(name: str, tasks: TensorDict) -> list[bool]:
    """Return which tasks of one environment its scripted policy solves in our worlds."""
    env, policies = worlds(ShownML10(), tasks), [ENV_POLICY_MAP[name]() for _ in tasks]
    observations, _ = env.reset(seed=0)
    solved = torch.zeros(len(tasks), dtype=torch.bool)
    for _ in range(env.family.horizon):
        pairs = zip(policies, observations.numpy(), strict=True)
        actions = np.stack([policy.get_action(observation) for policy, observation in pairs])
        observations, _, _, _, info = env.step(torch.from_numpy(actions))
        solved |= info["success"] > 0
    env.close()
    return solved.tolist()


def scripted_in_the_package(name: str, task: TensorDict) -> bool:
    env, policy, solved = theirs(task, hidden=False), ENV_POLICY_MAP[name](), False
    observation, _ = env.reset()
    for _ in range(env.max_path_length):
        action = np.clip(policy.get_action(observation.astype(np.float32)), -1, 1).astype(np.float32)
        observation, _, _, _, info = env.step(action)
        solved |= info["success"] > 0
    env.close()
    return solved


# What is refused, and the package that is not there or is another one


@pytest.mark.parametrize(
    ("family", "message"),
    [
        (lambda: MetaWorldML1(horizon=501), "Meta-World's episodes have at most 500 steps, not 501"),
        (lambda: MetaWorldML1(engine="fast"), "engine must be one of batched, package, not 'fast'"),
        (lambda: MetaWorldML1(reward="v3"), "reward must be one of v1, v2, not 'v3'"),
        (
            lambda: MetaWorldML1(env_name="reach-v2").own_split(),
            "Meta-World has no environment 'reach-v2'; did you mean reach-v3 or reach-wall-v3",
        ),
        (lambda: MetaWorldML1(env_name="x").own_split(), "Meta-World has no environment 'x'; it has assembly-v3, "),
        (
            lambda: MetaWorldCustom(train_envs=("reach-v3", "pull-v3")).own_split(),
            "Meta-World has no environment 'pull-v3'; did you mean ",
        ),
        (
            lambda: MetaWorldCustom(train_envs=("reach-v3",), test_envs=("reach-v3",)),
            "metaworld-custom: reach-v3 cannot be in both train_envs and test_envs",
        ),
        (lambda: MetaWorldCustom(test_envs=()), "needs at least one environment in train_envs and one in test_envs"),
        (
            lambda: MetaWorldML1().make_task({"environment": 0, "placement": np.zeros(6)}),
            "metaworld-ml1 has no tasks of assembly-v3, only of reach-v3",
        ),
        (
            lambda: MetaWorldML1().make_task({"environment": NAMES.index("reach-v3"), "placement": np.zeros(6)}),
            "Meta-World's reach-v3 has no task .*: placements must lie between ",
        ),
    ],
)
def test_settings_that_make_no_sense_are_refused(family: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        family()


def test_a_missing_package_is_one_line_with_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "metaworld", None)
    benchmark_tasks.cache_clear()
    message = r"Meta-World is not installed .*; pip install 'metarl-gym\[metaworld\]'$"
    for use in (
        lambda: TrainConfig("maml-trpo", "metaworld-ml10"),
        lambda: MetaWorldML10().own_split(),
        lambda: TaskVectorEnv(MetaWorldML1(), 1),
    ):
        with pytest.raises(InputError, match=message):
            use()


def test_another_version_of_the_package_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(package, "version", lambda name: "3.1.0")
    with pytest.raises(InputError, match=r"^Meta-World 3.1.0 is installed, not 3.0.0; pip install 'metarl-gym"):
        TaskVectorEnv(MetaWorldML1(), 1)


def test_families_are_listed_without_the_package(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "metaworld", None)
    assert main(["families"]) == 0
    assert "metaworld-ml45 " in capsys.readouterr().out


def test_welds_are_written_to_as_the_package_means_it() -> None:
    model: Any = environments()[0][1]().model
    welds = model.eq_data[model.eq_type == mujoco.mjtEq.mjEQ_WELD]
    assert welds[:, :11].tolist() == [[0, 0, 0, 0, 0, 0, -1, 0, 0, 0, 5]] * len(welds)
    assert len(welds) > 0


def test_the_package_is_left_alone_where_it_runs_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SawyerMocapBase, "reset_mocap_welds", original := object())
    monkeypatch.setattr(mujoco, "mjNEQDATA", 11)
    load_package()
    assert SawyerMocapBase.reset_mocap_welds is original
