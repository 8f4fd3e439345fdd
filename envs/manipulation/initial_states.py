"""Initial states of episodes: the package's own reset, run once per task and cached."""

import pickle
from dataclasses import dataclass
from functools import cache
from typing import Any

import mujoco
import numpy as np
import torch
from torch import Tensor

from metarl.envs.manipulation.arms import FIELDS, STATE
from metarl.envs.manipulation.package import Version, environments, load_package
from metarl.errors import InputError

# Every environment of the package sets these at a reset.
COMMON_ATTRIBUTES = ("_target_pos", "obj_init_pos", "init_tcp", "hand_init_pos")
MAX_CACHED = 1_000


@dataclass(frozen=True)
class InitialState:
    """The initial state of an episode.

    Attributes:
        rows: the simulation's state and model fields, by the names in ``STATE`` and ``FIELDS``, and attributes of the
            package's environment that its reset set (numbers and vectors), by name.
        observation: the initial observation ``[39]``.
    """

    rows: dict[str, Tensor]
    observation: Tensor


class Prototype:
    """One of the package's environments, which provides the resets and constants of the batched worlds.

    Attributes:
        model: its compiled model, with objects where the last reset placed them.
        attributes: names of the attributes that are copied after a reset.
        low, high: bounds of the mocap body's position ``[3]``.
        observation_bounds: lower and upper bounds of the observation ``[2, 39]``.

    Args:
        environment: index in the package's list.
        attributes: names of attributes to copy in addition to ``COMMON_ATTRIBUTES``.
        hidden: whether the goal is replaced by zeros in the observation.
        reward: version of the reward; with ``v2`` some environments set fewer attributes.
    """

    def __init__(
        self, environment: int, attributes: tuple[str, ...] = (), hidden: bool = True, reward: Version = "v2"
    ) -> None:
        self.name, self._class = environments()[environment]
        self._env: Any = self._class(reward_function_version=reward)
        self.attributes, self._hidden = (*COMMON_ATTRIBUTES, *attributes), hidden
        self._initial_states: dict[bytes, InitialState] = {}
        self.model: mujoco.MjModel = self._env.model
        self.low, self.high = (torch.from_numpy(bound.copy()) for bound in (self._env.mocap_low, self._env.mocap_high))
        self._env._partially_observable = hidden
        del self._env.__dict__["sawyer_observation_space"]
        space = self._env.sawyer_observation_space
        self.observation_bounds = torch.from_numpy(np.stack((space.low, space.high)))

    @property
    def placements(self) -> np.ndarray:
        """Lower and upper bounds of the placements that the package draws, ``[2, 3]`` or ``[2, 6]``."""
        space = self._env._random_reset_space
        return np.stack((space.low, space.high))

    def initial_state(self, placement: np.ndarray) -> InitialState:
        """Return the initial state of the task with a placement ``[6]``.

        Raises:
            InputError: when the package cannot draw such a placement.
        """
        key = placement.tobytes()
        if key not in self._initial_states:
            self._check(placement)
            if len(self._initial_states) == MAX_CACHED:
                del self._initial_states[next(iter(self._initial_states))]
            self._initial_states[key] = self._reset(placement[: self.placements.shape[1]])
        return self._initial_states[key]

    def _check(self, placement: np.ndarray) -> None:
        low, high = self.placements
        vector = placement[: len(low)]
        if ((vector < low) | (vector > high)).any():
            raise InputError(
                f"Meta-World's {self.name} has no task {vector.tolist()}: "
                f"placements must lie between {low.tolist()} and {high.tolist()}"
            )

    def _reset(self, vector: np.ndarray) -> InitialState:
        env = self._env
        data = {"rand_vec": vector.copy(), "env_cls": self._class, "partially_observable": self._hidden}
        env.set_task(load_package().Task(env_name=self.name, data=pickle.dumps(data)))
        env._get_state_rand_vec = _two_draws(self.name, vector.copy())
        observation, _ = env.reset()
        rows = {name: _tensor(getattr(env.data, name)) for name in STATE}
        rows.update({name: _tensor(getattr(env.model, name)) for name in FIELDS})
        mujoco.mj_forward(env.model, env.data)  # Some attributes are views of ``data``.
        rows.update({name: _attribute(getattr(env, name)) for name in self.attributes})
        return InitialState(rows, _tensor(observation))


@cache
def prototype(environment: int, attributes: tuple[str, ...], hidden: bool, reward: Version) -> Prototype:
    """Return the prototype of an environment, created once."""
    return Prototype(environment, attributes, hidden, reward)


def _two_draws(name: str, vector: np.ndarray) -> Any:
    """Return a function that yields ``vector`` for the two passes of a reset; asked again, the package would loop."""
    remaining = [vector, vector]

    def draw() -> np.ndarray:
        if not remaining:
            raise InputError(
                f"Meta-World's {name} has no task {vector.tolist()}: object and goal are too close; move them apart"
            )
        return remaining.pop()

    return draw


def _attribute(value: Any) -> Tensor:
    """Return an attribute in float64; NaN for one that the package sets later."""
    return torch.tensor(torch.nan, dtype=torch.float64) if value is None else _tensor(value)


def _tensor(array: Any) -> Tensor:
    return torch.from_numpy(np.array(array, dtype=np.float64))
