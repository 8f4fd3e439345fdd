"""Robots that have to run at a hidden speed."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from gymnasium import spaces
from tensordict import TensorDict
from torch import Tensor

from metarl.envs.locomotion.robots import ANT, HALF_CHEETAH, HOPPER, SWIMMER, WALKER2D, Robot
from metarl.envs.locomotion.worlds import LocomotionFamily
from metarl.errors import InputError
from metarl.families.family import register_family
from metarl.families.references import Reference
from metarl.families.tensor_family import uniform
from metarl.validation import require_counts

_CONSTANT_SPEED = "constant speed in the middle of the range, without control costs"


@dataclass(frozen=True)
class TargetVelocity(LocomotionFamily):
    """A robot whose reward is -|v - v*| minus a control cost, plus a constant.

    Here v is the mean speed along x over the step, in m/s, and v* the task.

    Attributes:
        min_velocity: smallest v*.
        max_velocity: largest v*.
        horizon: steps of an episode.
        survive: constant reward of every step.
    """

    min_velocity: float = 0.0
    max_velocity: float = 3.0
    horizon: int = 200
    survive: float = 0.0

    control_cost: ClassVar[float]

    def __post_init__(self) -> None:
        if not self.min_velocity < self.max_velocity:
            raise InputError(f"min_velocity {self.min_velocity} must lie below max_velocity {self.max_velocity}")

    @property
    def task_space(self) -> spaces.Dict:
        """``velocity``: v* in m/s."""
        return spaces.Dict({"velocity": spaces.Box(self.min_velocity, self.max_velocity, (), np.float32)})

    def sample_tasks(self, count: int, generator: torch.Generator) -> TensorDict:
        """Draw target speeds uniformly."""
        return TensorDict({"velocity": uniform(generator, (count,), self.min_velocity, self.max_velocity)}, [count])

    def outside_tasks(self, count: int, generator: torch.Generator) -> TensorDict:
        """Draw target speeds above the range, up to half its width."""
        reach = (self.max_velocity - self.min_velocity) / 2
        velocity = uniform(generator, (count,), self.max_velocity, self.max_velocity + reach)
        return TensorDict({"velocity": velocity}, [count])

    def reward_terms(self, velocity: Tensor, qpos: Tensor, actions: Tensor, tasks: TensorDict) -> dict[str, Tensor]:
        """Return ``x_velocity``, and the velocity, control and survival rewards."""
        speed = velocity[:, 0]
        return {
            "x_velocity": speed,
            "reward_velocity": -(speed - tasks["velocity"]).abs(),
            "reward_ctrl": -self.control_cost * actions.square().sum(-1),
            "reward_survive": torch.full_like(speed, self.survive),
        }


@register_family
@dataclass(frozen=True)
class HalfCheetahVel(TargetVelocity):
    """A half-cheetah that has to run at a hidden speed (Finn et al. 2017; Rothfuss et al. 2019).

    The reward is -|v - v*| - 0.05 |a|². The episode never terminates. MAML drew v* from [0, 2]; ProMP, PEARL and
    VariBAD draw from [0, 3], AMAGO with a horizon of 1000.
    """

    name: ClassVar[str] = "half-cheetah-vel"
    env_id: ClassVar[str] = "metarl/HalfCheetahVel-v0"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "0-3-h200": {"max_velocity": 3.0, "horizon": 200},
        "0-3-h100": {"max_velocity": 3.0, "horizon": 100},
        "0-3-h1000": {"max_velocity": 3.0, "horizon": 1000},
        "0-2-h200": {"max_velocity": 2.0, "horizon": 200},
        "0-2-h100": {"max_velocity": 2.0, "horizon": 100},
    }
    references: ClassVar[Mapping[str, Reference]] = {
        # Published runs reach about -20 to -40; the upper end makes scores conservative.
        "0-3-h200": Reference(200, -150.0, -20.0, f"{_CONSTANT_SPEED}; upper end of about -20 to -40"),
        "0-2-h200": Reference(200, -100.0, None, _CONSTANT_SPEED),
        "0-2-h100": Reference(100, -50.0, None, _CONSTANT_SPEED),
    }
    robot: ClassVar[Robot] = HALF_CHEETAH
    control_cost: ClassVar[float] = 0.05


@register_family
@dataclass(frozen=True)
class AntVel(TargetVelocity):
    """An ant that has to run at a hidden speed (Finn et al. 2017, section 5.3).

    The reward is 1 - |v - v*| - 0.005 |a|² + 0.05. The episode terminates when the torso's height leaves
    [0.2, 1] metres.
    """

    survive: float = 1.05

    name: ClassVar[str] = "ant-vel"
    env_id: ClassVar[str] = "metarl/AntVel-v0"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"0-3-h200": {"max_velocity": 3.0, "horizon": 200}}
    robot: ClassVar[Robot] = ANT
    control_cost: ClassVar[float] = 0.005


@register_family
@dataclass(frozen=True)
class HopperVel(TargetVelocity):
    """A hopper that has to hop at a hidden speed.

    The reward is 1 - |v - v*| - 0.001 |a|², with the termination, control cost and constant of Gymnasium's Hopper-v5:
    the episode terminates when the torso is at 0.7 metres or below or leans by 0.2 radians or more. There is no
    established range of speeds.
    """

    max_velocity: float = 2.0
    survive: float = 1.0

    name: ClassVar[str] = "hopper-vel"
    env_id: ClassVar[str] = "metarl/HopperVel-v0"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"0-2-h200": {"max_velocity": 2.0, "horizon": 200}}
    robot: ClassVar[Robot] = HOPPER
    control_cost: ClassVar[float] = 0.001


@register_family
@dataclass(frozen=True)
class Walker2dVel(TargetVelocity):
    """A walker that has to walk at a hidden speed.

    The reward is -|v - v*| - 0.001 |a|² and a constant; the episode terminates when the torso's height leaves (0.8, 2)
    metres or it leans by more than 1 radian. The preset ``promp`` follows ProMP's code: v* from [0, 10], constant 15, 8
    simulation steps per step; the other preset has the constant and the time step of Gymnasium's Walker2d-v5.

    Attributes:
        substeps: simulation steps per environment step.
    """

    survive: float = 1.0
    substeps: int = 4

    name: ClassVar[str] = "walker2d-vel"
    env_id: ClassVar[str] = "metarl/Walker2dVel-v0"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "0-3-h200": {"max_velocity": 3.0, "horizon": 200},
        "promp": {"max_velocity": 10.0, "horizon": 200, "survive": 15.0, "substeps": 8},
    }
    robot: ClassVar[Robot] = WALKER2D
    control_cost: ClassVar[float] = 0.001

    def __post_init__(self) -> None:
        super().__post_init__()
        require_counts(self, "substeps")

    @property
    def frame_skip(self) -> int:
        """Simulation steps per environment step."""
        return self.substeps


@register_family
@dataclass(frozen=True)
class SwimmerVel(TargetVelocity):
    """A swimmer that has to swim at a hidden speed, v* from [0.1, 0.2] (Rothfuss et al. 2019, code).

    The reward is -|v - v*| - 0.0001 |a|²; ProMP's code lacks the first minus sign. The episode never terminates.
    """

    min_velocity: float = 0.1
    max_velocity: float = 0.2

    name: ClassVar[str] = "swimmer-vel"
    env_id: ClassVar[str] = "metarl/SwimmerVel-v0"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "promp": {"min_velocity": 0.1, "max_velocity": 0.2, "horizon": 200}
    }
    robot: ClassVar[Robot] = SWIMMER
    control_cost: ClassVar[float] = 0.0001
