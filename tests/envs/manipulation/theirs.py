"""The package's own environments, beside our worlds."""

import pickle
from typing import Any

import numpy as np
import torch
from metaworld.policies import ENV_POLICY_MAP
from tensordict import TensorDict

from metarl.envs.manipulation.engines import make_worlds
from metarl.envs.manipulation.initial_states import Version, prototype
from metarl.envs.manipulation.package import environments, indices, load_package
from metarl.envs.manipulation.worlds import ManipulationDynamics

PACKAGE = load_package()
CLASSES = dict(environments())
# Nearer than this the package draws again.
APART = {"box-close-v3": 0.25, "sweep-into-v3": 0.0}


def drawn(name: str, count: int, seed: int = 0) -> list[np.ndarray]:
    """Return placements that the package accepts."""
    space, stream, found = prototype(indices()[name], (), False, "v2").placements, np.random.default_rng(seed), []
    while len(found) < count:
        vector = stream.uniform(*space)
        if len(vector) < 6 or np.linalg.norm(vector[:2] - vector[-3:-1]) >= APART.get(name, 0.15):
            found.append(vector)
    return found


def tasks_of(placed: list[tuple[str, np.ndarray]]) -> TensorDict:
    """Return tasks ``[N]`` of environments' names and placements."""
    placements = np.zeros((len(placed), 6))
    for row, (_, vector) in enumerate(placed):
        placements[row, : len(vector)] = vector
    numbers = torch.tensor([indices()[name] for name, _ in placed])
    return TensorDict({"environment": numbers, "placement": torch.from_numpy(placements)}, [len(placed)])


def theirs(name: str, vector: np.ndarray, hidden: bool = True, reward: Version = "v2") -> Any:
    """Return one of the package's environments with a task."""
    env = CLASSES[name](reward_function_version=reward)
    data = {"rand_vec": vector, "env_cls": CLASSES[name], "partially_observable": hidden}
    env.set_task(PACKAGE.Task(env_name=name, data=pickle.dumps(data)))
    return env


def ours(tasks: TensorDict, hidden: bool = True, reward: Version = "v2") -> ManipulationDynamics:
    """Return worlds whose episodes have begun."""
    worlds = make_worlds(len(tasks), torch.device("cpu"), hidden, reward)
    worlds.reset(tasks, torch.ones(len(tasks), dtype=torch.bool), torch.Generator())
    return worlds


class Actor:
    """Acts at random, or as the package's scripted policy of an environment."""

    def __init__(self, name: str, scripted: bool, seed: int) -> None:
        self._policy = ENV_POLICY_MAP[name]() if scripted else None
        self._stream = np.random.default_rng(seed)

    def act(self, observation: np.ndarray) -> np.ndarray:
        """Return an action in the action space."""
        if self._policy is None:
            return self._stream.uniform(-1, 1, 4).astype(np.float32)
        return np.clip(self._policy.get_action(observation), -1, 1).astype(np.float32)
