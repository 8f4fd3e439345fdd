"""Robots whose bodies differ from task to task (Rothfuss et al. 2019, section 6)."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from gymnasium import spaces
from tensordict import TensorDict
from torch import Tensor

from metarl.devices.transfer import send
from metarl.envs.locomotion.robots import HOPPER, WALKER2D, Robot
from metarl.envs.locomotion.worlds import LocomotionFamily
from metarl.errors import InputError
from metarl.families.family import register_family
from metarl.families.tensor_family import uniform

if TYPE_CHECKING:
    import mujoco

# Seconds; in Gymnasium's models half of it.
TIMESTEP = 0.004
# The largest and smallest factors are these bases raised to plus and minus log_scale.
BASES = {"body_mass": 1.5, "body_inertia": 1.5, "geom_friction": 1.5, "dof_damping": 1.3}


@dataclass(frozen=True)
class RandomParameters(LocomotionFamily):
    """A robot that has to run forward with a random body in each task.

    A task is a factor for every element of four fields of the model: masses, inertias and frictions are multiplied by
    1.5^u, dampings by 1.3^u, u ~ U[-3, 3] for each. The reward is v + 1 - 0.001 |a|², with v the mean speed along x
    over the step, in m/s. A step is 4 simulation steps of 4 ms, as in the code of both papers.

    Attributes:
        log_scale: bound of u.
        horizon: steps of an episode.
    """

    log_scale: float = 3.0
    horizon: int = 200

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"h200": {"log_scale": 3.0, "horizon": 200}}
    model_fields: ClassVar[tuple[str, ...]] = tuple(BASES)

    def __post_init__(self) -> None:
        if not self.log_scale > 0:
            raise InputError(f"log_scale must be positive, not {self.log_scale}")

    @property
    def model(self) -> "mujoco.MjModel":
        """The compiled model, with a time step of 4 ms."""
        return _model(self.robot.model_name)

    @cached_property
    def nominal(self) -> dict[str, Tensor]:
        """The model's original values of the fields, float64."""
        # Copies, because the arrays are views of a model shared by all families.
        return {name: torch.tensor(getattr(self.model, name)) for name in BASES}

    @property
    def task_space(self) -> spaces.Dict:
        """A factor for each element of the fields, named as in MuJoCo."""
        return spaces.Dict({name: spaces.Box(*self._range(name), self._shape(name), np.float32) for name in BASES})

    def sample_tasks(self, count: int, generator: torch.Generator) -> TensorDict:
        """Draw the exponents of the factors uniformly."""
        drawn = {}
        for name, base in BASES.items():
            exponents = uniform(generator, (count, *self._shape(name)), -self.log_scale, self.log_scale)
            # Rounding may move a factor outside the bounds of the task space.
            drawn[name] = (base**exponents).clamp(*self._range(name))
        return TensorDict(drawn, [count])

    def field_values(self, tasks: TensorDict) -> dict[str, Tensor]:
        """Return the model's fields ``[B, ...]`` of the tasks."""
        return {name: send(self.nominal[name], tasks[name].device) * tasks[name] for name in BASES}

    def reward_terms(self, velocity: Tensor, qpos: Tensor, actions: Tensor, tasks: TensorDict) -> dict[str, Tensor]:
        """Return ``x_velocity``, and the velocity, control and survival rewards."""
        speed = velocity[:, 0]
        return {
            "x_velocity": speed,
            "reward_velocity": speed,
            "reward_ctrl": -0.001 * actions.square().sum(-1),
            "reward_survive": torch.ones_like(speed),
        }

    def _shape(self, name: str) -> tuple[int, ...]:
        return tuple(self.nominal[name].shape)

    def _range(self, name: str) -> tuple[float, float]:
        low, high = np.float32(BASES[name] ** -self.log_scale), np.float32(BASES[name] ** self.log_scale)
        return float(low), float(high)


@cache
def _model(name: str) -> "mujoco.MjModel":
    from metarl.envs.simulation.batched import gymnasium_model

    model = copy.deepcopy(gymnasium_model(name))
    model.opt.timestep = TIMESTEP
    return model


@register_family
@dataclass(frozen=True)
class Walker2DRandParams(RandomParameters):
    """A walker with a random body in each task (Rothfuss et al. 2019; Rakelly et al. 2019).

    The reward is v + 1 - 0.001 |a|². The episode terminates when the torso's height leaves (0.8, 2) metres or it leans
    by more than 1 radian.
    """

    name: ClassVar[str] = "walker2d-rand-params"
    env_id: ClassVar[str] = "metarl/Walker2DRandParams-v0"
    robot: ClassVar[Robot] = WALKER2D


@register_family
@dataclass(frozen=True)
class HopperRandParams(RandomParameters):
    """A hopper with a random body in each task (Rothfuss et al. 2019).

    The reward is v + 1 - 0.001 |a|². The episode terminates when the torso is at 0.7 metres or below or leans by 0.2
    radians or more.
    """

    name: ClassVar[str] = "hopper-rand-params"
    env_id: ClassVar[str] = "metarl/HopperRandParams-v0"
    robot: ClassVar[Robot] = HOPPER
