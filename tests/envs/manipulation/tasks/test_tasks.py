"""Every environment compared with the package, step by step."""

import numpy as np
import pytest
import torch
from metaworld.env_dict import ML10_V3

from metarl.envs.manipulation.initial_states import Version
from metarl.envs.manipulation.package import indices
from metarl.envs.manipulation.tasks.catalogue import SPECS
from tests.envs.manipulation.theirs import Actor, drawn, ours, tasks_of, theirs

ML10 = [*ML10_V3["train"], *ML10_V3["test"]]
RANDOM_AND_SCRIPTED = (False, True)
# Of the 50, those whose scripted policy does not solve either of two tasks drawn here, in the package itself.
OWN_V1_REWARD = [
    "assembly-v3",
    "bin-picking-v3",
    "box-close-v3",
    "coffee-pull-v3",
    "disassemble-v3",
    "hammer-v3",
    "hand-insert-v3",
    "peg-unplug-side-v3",
    "pick-out-of-hole-v3",
    "stick-pull-v3",
    "stick-push-v3",
]
UNSOLVED: set[str] = set()


def test_every_environment_of_the_package_is_there() -> None:
    assert list(indices()) == sorted(SPECS, key=list(indices()).index)
    assert len(SPECS) == 50


@pytest.mark.parametrize("name", ML10)
def test_the_environments_of_ml10_are_the_packages(name: str) -> None:
    compare(name, 60)


@pytest.mark.parametrize("name", sorted(set(SPECS) - set(ML10)))
def test_the_other_environments_are_the_packages(name: str) -> None:
    compare(name, 15)


@pytest.mark.parametrize("name", [*ML10, *OWN_V1_REWARD])
def test_v1_rewards_are_the_packages(name: str) -> None:
    compare(name, 15, "v1")


@pytest.mark.slow
@pytest.mark.parametrize("name", SPECS)
def test_v1_rewards_of_whole_episodes_are_the_packages(name: str) -> None:
    compare(name, 500, "v1", (False, False, True, True))


@pytest.mark.slow
@pytest.mark.parametrize("name", SPECS)
def test_whole_episodes_are_the_packages(name: str) -> None:
    assert compare(name, 500, scripted=(False, False, True, True)) or name in UNSOLVED


def compare(name: str, steps: int, reward: Version = "v2", scripted: tuple[bool, ...] = RANDOM_AND_SCRIPTED) -> bool:
    """Step random and scripted worlds beside the package's; return whether a scripted one succeeded.

    The worlds have two placements in turn.

    The state is equal bit for bit, the observation but for the rounding of a quaternion, which is not seen in float32,
    and the reward to 1e-6 of its size: the package computes some in the float32 of the action.
    """
    placed = [(name, vector) for vector in drawn(name, 2)] * (len(scripted) // 2)
    tasks = tasks_of(placed)
    worlds = ours(tasks, hidden=False, reward=reward)
    packages = [theirs(*task, hidden=False, reward=reward) for task in placed]
    observations = [env.reset()[0] for env in packages]
    actors = [Actor(name, each, seed) for seed, each in enumerate(scripted)]
    assert np.array_equal(worlds.observe().numpy(), np.stack(observations).astype(np.float32))
    solved = False
    for _ in range(steps):
        actions = np.stack([actor.act(seen) for actor, seen in zip(actors, observations, strict=True)])
        transition = worlds.step(torch.from_numpy(actions), tasks, torch.Generator())
        outcomes = [env.step(action) for env, action in zip(packages, actions, strict=True)]
        observations = [outcome[0] for outcome in outcomes]
        assert np.array_equal(worlds.state("qpos").numpy(), np.stack([env.data.qpos for env in packages]))
        assert np.array_equal(worlds.observe().numpy(), np.stack(observations).astype(np.float32))
        rewards = np.array([float(outcome[1]) for outcome in outcomes])
        assert transition.rewards.numpy() == pytest.approx(rewards, rel=1e-6, abs=1e-6)
        successes = [float(outcome[4]["success"]) for outcome in outcomes]
        assert transition.info["success"].tolist() == successes
        solved |= max(success for success, each in zip(successes, scripted, strict=True) if each) > 0
    assert not worlds.unstable().any()
    return solved
