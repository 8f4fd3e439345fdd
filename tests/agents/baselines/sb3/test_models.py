import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3 import A2C, PPO, SAC
from stable_baselines3.common.base_class import BaseAlgorithm
from torch import Tensor

import metarl  # noqa: F401 (registers families)
from metarl.agents.baselines.sb3.gradient_steps import ExactDQN
from metarl.agents.baselines.sb3.models import (
    count_transitions,
    finite,
    for_new_task,
    global_streams,
    knowledge,
    remember,
    teach,
    transitions,
)
from metarl.agents.baselines.sb3.vec_env import Sb3VecEnv
from metarl.families.family import make_family
from metarl.worlds.vector_env import TaskVectorEnv

CPU = torch.device("cpu")
ALGORITHMS: dict[str, tuple[type[BaseAlgorithm], str, dict[str, Any]]] = {
    "dqn": (
        ExactDQN,
        "gridnavi",
        {"buffer_size": 60, "learning_starts": 0, "train_freq": 1, "target_update_interval": 6},
    ),
    "ppo": (PPO, "gridnavi", {"n_steps": 8, "batch_size": 16, "n_epochs": 2}),
    "a2c": (A2C, "navigation-2d", {"n_steps": 4}),
    "sac": (SAC, "navigation-2d", {"buffer_size": 60, "learning_starts": 0, "batch_size": 8}),
}
every_algorithm = pytest.mark.parametrize("name", ALGORITHMS)


@pytest.fixture(autouse=True)
def _sb3_logs_into_a_folder_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SB3_LOGDIR", str(tmp_path))


def fresh(name: str, worlds: int = 2, seed: int = 0, **changed: Any) -> BaseAlgorithm:
    """Return an untrained model; ``changed`` are arguments of its constructor."""
    algorithm, family, arguments = ALGORITHMS[name]
    env = Sb3VecEnv(TaskVectorEnv(make_family(family, horizon=5), worlds))
    arguments = {"policy_kwargs": {"net_arch": [8]}, "device": "cpu", "seed": seed, **arguments, **changed}
    with global_streams(seed, CPU):
        return algorithm("MlpPolicy", env, **arguments)


def trained(name: str, steps: int = 40, **changed: Any) -> BaseAlgorithm:
    model = fresh(name, **changed)
    with global_streams(5, CPU):
        return model.learn(steps)


def numbers(content: Any) -> list[float]:
    """Return all numbers of nested mappings."""
    if isinstance(content, Mapping):
        return [number for key in sorted(content) for number in numbers(content[key])]
    return torch.as_tensor(content, dtype=torch.float64).flatten().tolist()


@every_algorithm
def test_a_taught_model_knows_the_same(name: str) -> None:
    known, other = knowledge(trained(name)), fresh(name, seed=1)
    assert numbers(knowledge(other)) != numbers(known)
    teach(other, known)
    assert numbers(knowledge(other)) == numbers(known)


@every_algorithm
def test_a_taught_model_learns_on_like_its_teacher(name: str) -> None:
    models = [trained(name), fresh(name, seed=1)]
    teach(models[1], knowledge(models[0]))
    for model in models:
        model.set_env(model.get_env())  # type: ignore[arg-type]
        with global_streams(7, CPU):
            model.get_env().seed(7)  # type: ignore[union-attr]
            model.action_space.seed(7)
            # Where DQN left its exploration is not a matter of knowledge: learners set it.
            vars(models[1]).update(exploration_rate=getattr(models[0], "exploration_rate", 0.0))
            model.learn(40, reset_num_timesteps=False)
    assert numbers(knowledge(models[1])) == numbers(knowledge(models[0]))


@every_algorithm
def test_neither_of_two_models_learns_what_the_other_does(name: str) -> None:
    teacher, pupil = trained(name), fresh(name, seed=1)
    known = knowledge(teacher)
    before = numbers(known)
    teach(pupil, known)
    with global_streams(7, CPU):
        pupil.learn(40, reset_num_timesteps=False)
    assert numbers(knowledge(teacher)) == before
    assert numbers(known) == before


@every_algorithm
def test_sb3s_own_archive_of_a_taught_model_acts_alike(name: str) -> None:
    model, archive = fresh(name, seed=1), io.BytesIO()
    teach(model, knowledge(trained(name)))
    model.save(archive)
    archive.seek(0)
    loaded = type(model).load(archive, device="cpu")
    seen = np.random.default_rng(0).normal(size=(20, 2)).astype(np.float32)
    np.testing.assert_array_equal(
        loaded.predict(seen, deterministic=True)[0], model.predict(seen, deterministic=True)[0]
    )


@every_algorithm
def test_a_new_task_begins_without_memory_and_with_no_steps(name: str) -> None:
    model = trained(name)
    known, new = knowledge(model), for_new_task(model)
    assert "transitions" not in new
    assert (new["counters"]["num_timesteps"], known["counters"]["num_timesteps"]) == (0, model.num_timesteps)
    assert numbers(new["parameters"]) == numbers(known["parameters"])


def test_the_knowledge_of_another_algorithm_does_not_fit() -> None:
    with pytest.raises((KeyError, RuntimeError)):
        teach(fresh("sac"), knowledge(trained("a2c")))


def test_the_knowledge_of_other_networks_does_not_fit() -> None:
    with pytest.raises(RuntimeError):
        teach(fresh("dqn", policy_kwargs={"net_arch": [9]}), knowledge(trained("dqn")))


def rows(count: int) -> dict[str, Tensor]:
    """Return transitions, each identified by its number."""
    number = torch.arange(float(count))
    wide = {name: number[:, None].expand(-1, 2) for name in ("observations", "next_observations")}
    return {**wide, "actions": number[:, None].long(), **dict.fromkeys(("rewards", "dones", "timeouts"), number)}


def buffer(size: int, worlds: int = 2) -> Any:
    return fresh("dqn", worlds=worlds, buffer_size=size).replay_buffer  # type: ignore[attr-defined]


@pytest.mark.parametrize("size", [8, 20])
def test_a_buffer_remembers_in_order(size: int) -> None:
    kept = buffer(size)
    remember(kept, rows(8))
    assert transitions(kept)["rewards"].tolist() == list(range(8))
    assert kept.full == (size == 8)


def test_a_buffer_remembers_the_latest() -> None:
    kept = buffer(6)
    remember(kept, rows(20))
    assert transitions(kept)["actions"].flatten().tolist() == list(range(14, 20))


def test_what_a_full_buffer_forgets_next_is_the_oldest() -> None:
    kept = buffer(6)
    remember(kept, rows(6))
    one = np.full((2, 2), 99.0)
    kept.add(one, one, np.zeros(2), np.array([99.0, 99.0]), np.zeros(2), [{}, {}])
    assert transitions(kept)["rewards"].tolist() == [2, 3, 4, 5, 99, 99]


def test_transitions_fit_another_number_of_worlds() -> None:
    kept = buffer(12, worlds=3)
    remember(kept, rows(8))
    assert transitions(kept)["rewards"].tolist() == [2, 3, 4, 5, 6, 7]


def test_nothing_is_remembered_of_nothing() -> None:
    kept = buffer(6)
    remember(kept, rows(1))
    assert kept.size() == 0


def test_transitions_are_counted() -> None:
    assert count_transitions({"transitions": rows(7)}) == 7
    assert count_transitions({}) == 0
    assert count_transitions(knowledge(trained("dqn", steps=40))) == 40


def test_the_global_streams_are_put_back() -> None:
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    expected = torch.rand(3), np.random.rand(3)  # noqa: NPY002
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    with global_streams(3, CPU):
        torch.rand(5)
        np.random.rand(5)  # noqa: NPY002
    assert torch.equal(torch.rand(3), expected[0])
    np.testing.assert_array_equal(np.random.rand(3), expected[1])  # noqa: NPY002


def test_the_global_streams_are_put_back_after_a_failure() -> None:
    before = np.random.get_state()[1].tolist()  # type: ignore[index]  # noqa: NPY002

    def fail() -> None:
        with global_streams(3, CPU):
            raise ZeroDivisionError(np.random.rand(5))  # noqa: NPY002

    with pytest.raises(ZeroDivisionError):
        fail()
    assert np.random.get_state()[1].tolist() == before  # type: ignore[index]  # noqa: NPY002


def test_the_streams_of_a_seed_are_its_own() -> None:
    drawn = []
    for seed in (2**62, 2**62, 2**62 + 1):
        with global_streams(seed, CPU):
            drawn.append((torch.rand(1).item(), np.random.rand()))  # noqa: NPY002
    assert drawn[0] == drawn[1]
    assert drawn[0][0] != drawn[2][0]
    assert drawn[0][1] != drawn[2][1]


def test_a_model_with_nan_is_not_finite() -> None:
    model = fresh("dqn")
    assert finite(model)
    next(model.policy.parameters()).data[0] = torch.nan
    assert not finite(model)
