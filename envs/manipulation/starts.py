"""Where the episodes of a task start: what the package's own reset gives, computed once for each task and kept."""

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

# The package remembers these in every environment.
COMMON = ("_target_pos", "obj_init_pos", "init_tcp", "hand_init_pos")
MOST_KEPT = 1_000


@dataclass(frozen=True)
class Start:
    """The start of an episode.

    Attributes:
        rows: the simulation's state and fields, by the names of ``STATE`` and ``FIELDS``, and the notes: what the
            package remembers of the reset, numbers and vectors by the names of its attributes.
        observation: the first one ``[39]``.
    """

    rows: dict[str, Tensor]
    observation: Tensor


class Prototype:
    """One of the package's environments, whose resets and constants the batched worlds are made of.

    Attributes:
        model: its compiled model, whose placed objects are those of the last reset.
        notes: attributes that are remembered of a reset.
        low, high: bounds ``[3]`` of the mocap body.
        observation_bounds: low and high ``[2, 39]``.

    Args:
        environment: index in the package's list.
        notes: attributes to remember beside ``COMMON``.
        hidden: whether zeros are in the goal's place in the observation.
        reward: version; some environments remember less for the second.
    """

    def __init__(
        self, environment: int, notes: tuple[str, ...] = (), hidden: bool = True, reward: Version = "v2"
    ) -> None:
        self.name, self._class = environments()[environment]
        self._env: Any = self._class(reward_function_version=reward)
        self.notes, self._hidden = (*COMMON, *notes), hidden
        self._starts: dict[bytes, Start] = {}
        self.model: mujoco.MjModel = self._env.model
        self.low, self.high = (torch.from_numpy(bound.copy()) for bound in (self._env.mocap_low, self._env.mocap_high))
        self._env._partially_observable = hidden
        del self._env.__dict__["sawyer_observation_space"]
        space = self._env.sawyer_observation_space
        self.observation_bounds = torch.from_numpy(np.stack((space.low, space.high)))

    @property
    def placements(self) -> np.ndarray:
        """Lowest and highest placement ``[2, 3 or 6]`` that the package draws."""
        space = self._env._random_reset_space
        return np.stack((space.low, space.high))

    def start(self, placement: np.ndarray) -> Start:
        """Return the start of the task with a placement ``[6]``.

        Raises:
            InputError: when the package never draws such a placement.
        """
        key = placement.tobytes()
        if key not in self._starts:
            self._check(placement)
            if len(self._starts) == MOST_KEPT:
                del self._starts[next(iter(self._starts))]
            self._starts[key] = self._reset(placement[: self.placements.shape[1]])
        return self._starts[key]

    def _check(self, placement: np.ndarray) -> None:
        low, high = self.placements
        vector = placement[: len(low)]
        if ((vector < low) | (vector > high)).any():
            raise InputError(
                f"Meta-World's {self.name} has no task {vector.tolist()}: "
                f"placements lie between {low.tolist()} and {high.tolist()}"
            )

    def _reset(self, vector: np.ndarray) -> Start:
        env = self._env
        data = {"rand_vec": vector.copy(), "env_cls": self._class, "partially_observable": self._hidden}
        env.set_task(load_package().Task(env_name=self.name, data=pickle.dumps(data)))
        env._get_state_rand_vec = _drawn_twice_at_most(self.name, vector.copy())
        observation, _ = env.reset()
        rows = {name: _tensor(getattr(env.data, name)) for name in STATE}
        rows.update({name: _tensor(getattr(env.model, name)) for name in FIELDS})
        mujoco.mj_forward(env.model, env.data)  # What the package looks up in its data is that of the next step.
        rows.update({name: _note(getattr(env, name)) for name in self.notes})
        return Start(rows, _tensor(observation))


@cache
def prototype(environment: int, notes: tuple[str, ...], hidden: bool, reward: Version) -> Prototype:
    """Return the prototype of an environment, made once."""
    return Prototype(environment, notes, hidden, reward)


def _drawn_twice_at_most(name: str, vector: np.ndarray) -> Any:
    """Return what gives ``vector`` to the two passes of a reset; asked again, the package would ask for ever."""
    left = [vector, vector]

    def draw() -> np.ndarray:
        if not left:
            raise InputError(f"Meta-World's {name} has no task {vector.tolist()}: objects and goal are too near")
        return left.pop()

    return draw


def _note(value: Any) -> Tensor:
    """Return a number or vector of the package's in float64; what it fills in later is not a number yet."""
    return torch.tensor(torch.nan, dtype=torch.float64) if value is None else _tensor(value)


def _tensor(array: Any) -> Tensor:
    return torch.from_numpy(np.array(array, dtype=np.float64))
