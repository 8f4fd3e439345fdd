"""Robots that have to run in a hidden direction, or to a hidden goal."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from gymnasium import spaces
from tensordict import TensorDict
from torch import Tensor

from metarl.envs.locomotion.robots import ANT, HALF_CHEETAH, HUMANOID, Robot, never
from metarl.envs.locomotion.worlds import LocomotionFamily
from metarl.errors import InputError
from metarl.families.family import Part, register_family
from metarl.families.references import Reference
from metarl.families.tensor_family import uniform


def shared(tasks: TensorDict) -> Mapping[Part, TensorDict]:
    """Return all tasks in every part, as is usual in the field for families of two tasks."""
    return {"train": tasks, "validation": tasks, "test": tasks}


@register_family
@dataclass(frozen=True)
class HalfCheetahDir(LocomotionFamily):
    """A half-cheetah that has to run forward or backward (Finn et al. 2017; Rothfuss et al. 2019).

    The reward is d v - 0.05 |a|², with v the mean speed over the step and d = 1 or -1. The episode never terminates.
    Both tasks are used for training and testing.

    Attributes:
        horizon: steps of an episode; 100 in ProMP.
    """

    horizon: int = 200

    name: ClassVar[str] = "half-cheetah-dir"
    env_id: ClassVar[str] = "metarl/HalfCheetahDir-v0"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"h200": {"horizon": 200}, "h100": {"horizon": 100}}
    references: ClassVar[Mapping[str, Reference]] = {
        "h100": Reference(100, 0.0, None, "what one direction earns the other one costs")
    }
    robot: ClassVar[Robot] = HALF_CHEETAH

    @property
    def task_space(self) -> spaces.Dict:
        """``direction``: 1 is forward, -1 backward."""
        return spaces.Dict({"direction": spaces.Box(-1.0, 1.0, (), np.float32)})

    def all_tasks(self) -> TensorDict:
        """Return forward and backward."""
        return TensorDict({"direction": torch.tensor([1.0, -1.0])}, [2])

    def own_split(self) -> Mapping[Part, TensorDict]:
        """Return both tasks in every part."""
        return shared(self.all_tasks())

    def sample_tasks(self, count: int, generator: torch.Generator) -> TensorDict:
        """Draw forward or backward with equal probability."""
        drawn: TensorDict = self.all_tasks()[torch.randint(2, (count,), generator=generator)]
        return drawn

    def reward_terms(self, velocity: Tensor, qpos: Tensor, actions: Tensor, tasks: TensorDict) -> dict[str, Tensor]:
        """Return ``x_velocity``, and the rewards for speed and control."""
        return {
            "x_velocity": velocity[:, 0],
            "reward_velocity": tasks["direction"] * velocity[:, 0],
            "reward_ctrl": -0.05 * actions.square().sum(-1),
        }


@dataclass(frozen=True)
class Heading(LocomotionFamily):
    """A robot that is rewarded for its speed along a heading.

    Attributes:
        opposite: whether the only headings are 0 and π; otherwise any.
        horizon: steps of an episode.
        survive: constant reward of every step.
    """

    opposite: bool = False
    horizon: int = 200
    survive: float = 1.0

    control_cost: ClassVar[float]
    speed_weight: ClassVar[float] = 1.0

    @property
    def task_space(self) -> spaces.Dict:
        """``heading`` in radians, from the x axis."""
        return spaces.Dict({"heading": spaces.Box(0.0, 2 * math.pi, (), np.float32)})

    def all_tasks(self) -> TensorDict | None:
        """Return forward and backward, if these are the only tasks."""
        return TensorDict({"heading": torch.tensor([0.0, math.pi])}, [2]) if self.opposite else None

    def own_split(self) -> Mapping[Part, TensorDict] | None:
        """Return both tasks in every part, if there are only two."""
        tasks = self.all_tasks()
        return None if tasks is None else shared(tasks)

    def sample_tasks(self, count: int, generator: torch.Generator) -> TensorDict:
        """Draw headings uniformly."""
        if (tasks := self.all_tasks()) is not None:
            return tasks[torch.randint(2, (count,), generator=generator)]
        return TensorDict({"heading": uniform(generator, (count,), 0.0, 2 * math.pi)}, [count])

    def reward_terms(self, velocity: Tensor, qpos: Tensor, actions: Tensor, tasks: TensorDict) -> dict[str, Tensor]:
        """Return ``velocity`` along the heading, and the velocity, control and survival rewards."""
        heading = tasks["heading"]
        along = velocity[:, 0] * heading.cos() + velocity[:, 1] * heading.sin()
        return {
            "velocity": along,
            "reward_velocity": self.speed_weight * along,
            "reward_ctrl": -self.control_cost * actions.square().sum(-1),
            "reward_survive": torch.full_like(along, self.survive),
        }


@register_family
@dataclass(frozen=True)
class AntDir(Heading):
    """An ant that has to run in a hidden direction (Finn et al. 2017; Rakelly et al. 2019).

    The reward is the speed along the heading - 0.5 |a|² and a constant, 1 (0.05 in MAML). The episode terminates when
    the torso's height leaves [0.2, 1] metres. With only the headings 0 and π, both tasks are used for training and
    testing.
    """

    name: ClassVar[str] = "ant-dir"
    env_id: ClassVar[str] = "metarl/AntDir-v0"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "uniform-h200": {"opposite": False, "horizon": 200},
        "opposite-h200": {"opposite": True, "horizon": 200},
        "maml": {"opposite": True, "horizon": 200, "survive": 0.05},
    }
    robot: ClassVar[Robot] = ANT
    control_cost: ClassVar[float] = 0.5


@register_family
@dataclass(frozen=True)
class HumanoidDir(Heading):
    """A humanoid that has to run in a hidden direction (Rakelly et al. 2019, section 6.1).

    The reward is a quarter of the speed of its centre of mass along the heading - 0.1 |a|² + 5. The episode terminates
    when the torso's height leaves [1, 2] metres.
    """

    survive: float = 5.0

    name: ClassVar[str] = "humanoid-dir"
    env_id: ClassVar[str] = "metarl/HumanoidDir-v0"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"uniform-h200": {"opposite": False, "horizon": 200}}
    robot: ClassVar[Robot] = HUMANOID
    control_cost: ClassVar[float] = 0.1
    speed_weight: ClassVar[float] = 0.25


@register_family
@dataclass(frozen=True)
class AntGoal(LocomotionFamily):
    """An ant that has to reach a hidden goal (Rothfuss et al. 2019; Rakelly et al. 2019).

    The reward is -|x - x*| - |y - y*| - 0.1 |a|². The episode never terminates. The horizontal position is observed.

    Attributes:
        radius: radius of the disc around the start from which goals are drawn, in metres.
        horizon: steps of an episode.
    """

    radius: float = 3.0
    horizon: int = 200

    name: ClassVar[str] = "ant-goal"
    env_id: ClassVar[str] = "metarl/AntGoal-v0"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"r3-h200": {"radius": 3.0, "horizon": 200}}
    robot: ClassVar[Robot] = ANT

    def __post_init__(self) -> None:
        if not self.radius > 0:
            raise InputError(f"the radius of the goals must be positive, not {self.radius}")

    @property
    def task_space(self) -> spaces.Dict:
        """``goal`` ``[2]``: its x and y in metres, inside the disc."""
        return spaces.Dict({"goal": spaces.Box(-self.radius, self.radius, (2,), np.float32)})

    def sample_tasks(self, count: int, generator: torch.Generator) -> TensorDict:
        """Draw goals uniformly from the disc."""
        angle = uniform(generator, (count,), 0.0, 2 * math.pi)
        distance = self.radius * uniform(generator, (count,), 0.0, 1.0).sqrt()
        return TensorDict({"goal": torch.stack([distance * angle.cos(), distance * angle.sin()], -1)}, [count])

    def make_task(self, parameters: Mapping[str, Any]) -> TensorDict:
        """Turn named values into a task ``[1]``; see ``TaskFamily.make_task``.

        Raises:
            InputError: also for a goal outside the disc.
        """
        task = super().make_task(parameters)
        if float(task["goal"].norm()) > self.radius * (1 + 1e-6):
            raise InputError(
                f"{self.name}: task parameter goal = {parameters['goal']} lies outside radius {self.radius}"
            )
        return task

    def observe(self, qpos: Tensor, qvel: Tensor) -> Tensor:
        """Return all positions and velocities."""
        return torch.cat([qpos, qvel], -1)

    def terminated(self, qpos: Tensor, qvel: Tensor) -> Tensor:
        """Never."""
        return never(qpos, qvel)

    def reward_terms(self, velocity: Tensor, qpos: Tensor, actions: Tensor, tasks: TensorDict) -> dict[str, Tensor]:
        """Return the goal and control rewards."""
        return {
            "reward_goal": -(qpos[:, :2] - tasks["goal"]).abs().sum(-1),
            "reward_ctrl": -0.1 * actions.square().sum(-1),
        }
