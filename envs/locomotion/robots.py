"""Gymnasium's MuJoCo robots: observations, initial states and termination.

Observations are positions and velocities. External contact forces are left out: MuJoCo versions disagree on them, and
old ones silently left them at zero.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Fallen = Callable[[Tensor, Tensor], Tensor]


def never(qpos: Tensor, qvel: Tensor) -> Tensor:
    """Return False for every robot."""
    return torch.zeros(qpos.shape[0], dtype=torch.bool, device=qpos.device)


def height_outside(low: float, high: float) -> Fallen:
    """Return a function that tests whether the torso's height (coordinate 2) has left [low, high] metres."""
    return lambda qpos, qvel: (qpos[:, 2] < low) | (qpos[:, 2] > high)


def walker_fallen(qpos: Tensor, qvel: Tensor) -> Tensor:
    """Return whether the torso's height has left (0.8, 2) metres, or it leans by more than 1 radian."""
    height, angle = qpos[:, 1], qpos[:, 2]
    return (height <= 0.8) | (height >= 2) | (angle.abs() > 1)


def hopper_fallen(qpos: Tensor, qvel: Tensor) -> Tensor:
    """Return whether the torso is at 0.7 metres or below, leans by 0.2 radians or more, or a coordinate diverged."""
    height, angle = qpos[:, 1], qpos[:, 2]
    ran_away = (qpos[:, 2:].abs() >= 100).any(-1) | (qvel.abs() >= 100).any(-1)
    return (height <= 0.7) | (angle.abs() >= 0.2) | ran_away


@dataclass(frozen=True)
class Robot:
    """One robot.

    Attributes:
        model_name: name of Gymnasium's model file.
        frame_skip: simulation steps per environment step.
        plane: number of leading positions that are the horizontal position: x, or x and y.
        position_noise: half-width of the uniform noise on positions at the start of an episode.
        velocity_noise: half-width of the uniform noise on velocities, or its standard deviation if ``gaussian``.
        gaussian: whether the noise on initial velocities is Gaussian.
        fallen: maps positions ``[B, nq]`` and velocities ``[B, nv]`` to bool ``[B]``: whether the robot has fallen.
        velocity_limit: observed velocities are clipped to plus or minus this.
        by_mass: whether the speed is that of the centre of mass; otherwise that of the root.
    """

    model_name: str
    frame_skip: int
    plane: int
    position_noise: float
    velocity_noise: float
    gaussian: bool = False
    fallen: Fallen = never
    velocity_limit: float | None = None
    by_mass: bool = False

    def observe(self, qpos: Tensor, qvel: Tensor) -> Tensor:
        """Return observations ``[B, D]``: all positions except the horizontal one, and all velocities."""
        if self.velocity_limit is not None:
            qvel = qvel.clamp(-self.velocity_limit, self.velocity_limit)
        return torch.cat([qpos[:, self.plane :], qvel], -1)


HALF_CHEETAH = Robot("half_cheetah", 5, 1, 0.1, 0.1, gaussian=True)
ANT = Robot("ant", 5, 2, 0.1, 0.1, gaussian=True, fallen=height_outside(0.2, 1.0))
HUMANOID = Robot("humanoid", 5, 2, 0.01, 0.01, fallen=height_outside(1.0, 2.0), by_mass=True)
HOPPER = Robot("hopper", 4, 1, 0.005, 0.005, fallen=hopper_fallen, velocity_limit=10)
WALKER2D = Robot("walker2d_v5", 4, 1, 0.005, 0.005, fallen=walker_fallen, velocity_limit=10)
SWIMMER = Robot("swimmer", 4, 2, 0.1, 0.1)
