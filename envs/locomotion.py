"""MuJoCo robots whose task is in the reward: each family is an observation, a reward and an end, over a model.

Every term is a small torch function of positions, velocities and actions of B worlds, in float64.
"""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import mujoco
import numpy as np
import torch
from gymnasium import spaces
from tensordict import TensorDict
from torch import Tensor

from metarl.envs.simulation import BatchedSim, gymnasium_model, make_simulation
from metarl.errors import InputError
from metarl.family import Dynamics, TaskFamily, Transition, register_family, uniform


class LocomotionFamily(TaskFamily):
    """A robot of Gymnasium's MuJoCo suite, with rewards that depend on the task.

    Attributes:
        model_name: of Gymnasium's model file.
        frame_skip: simulation steps in each environment step.
        reset_noise: half-width of the uniform noise on positions and deviation of the Gaussian noise on velocities
            at the start of an episode.
    """

    model_name: ClassVar[str]
    frame_skip: ClassVar[int] = 5
    reset_noise: ClassVar[float] = 0.1

    @abstractmethod
    def observe(self, qpos: Tensor, qvel: Tensor) -> Tensor:
        """Return observations ``[B, D]`` of positions ``[B, nq]`` and velocities ``[B, nv]``."""

    @abstractmethod
    def reward_terms(self, before: Tensor, qpos: Tensor, actions: Tensor, tasks: TensorDict) -> dict[str, Tensor]:
        """Return named terms ``[B]`` of a step; those whose name begins with ``reward_`` add up to the reward.

        Args:
            before: positions ``[B, nq]`` before the step.
            qpos: positions ``[B, nq]`` after it.
            actions: ``[B, nu]``, inside the action space.
            tasks: ``[B]``.
        """

    @abstractmethod
    def terminated(self, qpos: Tensor) -> Tensor:
        """Return a bool ``[B]``: episodes that end in failure at these positions."""

    @property
    def model(self) -> mujoco.MjModel:
        """The compiled model, shared by all; not to be changed."""
        return gymnasium_model(self.model_name)

    @property
    def dt(self) -> float:
        """Seconds that one environment step takes."""
        return float(self.model.opt.timestep) * self.frame_skip

    @property
    def observation_space(self) -> spaces.Box:
        """Positions and velocities, as ``observe`` picks them; contact forces are left out."""
        width = self.observe(torch.zeros(1, self.model.nq), torch.zeros(1, self.model.nv)).shape[1]
        return spaces.Box(-np.inf, np.inf, (width,), np.float32)

    @property
    def action_space(self) -> spaces.Box:
        """Control of each actuator."""
        low, high = self.model.actuator_ctrlrange.astype(np.float32).T
        return spaces.Box(low, high, dtype=np.float32)

    def dynamics(self, num_envs: int, device: torch.device) -> Dynamics:
        """Make ``num_envs`` simulations on ``device``."""
        return LocomotionDynamics(self, make_simulation(self.model, num_envs, device))


class LocomotionDynamics(Dynamics):
    """The worlds of a ``LocomotionFamily`` on a simulation engine."""

    def __init__(self, family: LocomotionFamily, simulation: BatchedSim) -> None:
        self.simulation = simulation
        self._family = family
        self._qpos0 = torch.as_tensor(family.model.qpos0, device=simulation.qpos.device, dtype=simulation.qpos.dtype)

    def reset(self, tasks: TensorDict, mask: Tensor, generator: torch.Generator) -> None:
        """Start episodes at the model's rest position plus noise, as Gymnasium's environments do."""
        simulation, noise = self.simulation, self._family.reset_noise
        device, kind = simulation.qpos.device, simulation.qpos.dtype
        draws = torch.rand(simulation.qpos.shape, generator=generator, device=device, dtype=kind)
        offsets = noise * (2 * draws - 1)
        velocities = noise * torch.randn(simulation.qvel.shape, generator=generator, device=device, dtype=kind)
        simulation.restart(mask, self._qpos0 + offsets, velocities)

    def step(self, actions: Tensor, tasks: TensorDict, generator: torch.Generator) -> Transition:
        """Hold the actions for ``frame_skip`` simulation steps."""
        simulation, family = self.simulation, self._family
        before = simulation.qpos.clone()
        simulation.ctrl.copy_(actions)
        simulation.step(family.frame_skip)
        terms = family.reward_terms(before, simulation.qpos, actions, tasks)
        rewards = sum(value for key, value in terms.items() if key.startswith("reward_"))
        assert isinstance(rewards, Tensor)
        return Transition(rewards.float(), family.terminated(simulation.qpos), terms)

    def observe(self) -> Tensor:
        """Return observations ``[B, D]`` in float32."""
        return self._family.observe(self.simulation.qpos, self.simulation.qvel).float()

    def unstable(self) -> Tensor:
        """Return a bool ``[B]``, true where the physics broke down since the last reset."""
        return self.simulation.unstable()


@register_family
@dataclass(frozen=True)
class HalfCheetahVel(LocomotionFamily):
    """A half-cheetah that is to run at a speed it is not told (Finn et al. 2017; Rothfuss et al. 2019).

    The reward is -|v - v*| - 0.05 |a|², with v the mean speed over the step. The episode never terminates.

    Attributes:
        min_velocity: smallest v*, in m/s.
        max_velocity: largest v*, in m/s. MAML drew from [0, 2]; ProMP, PEARL and VariBAD draw from [0, 3].
        horizon: steps of an episode.
    """

    min_velocity: float = 0.0
    max_velocity: float = 3.0
    horizon: int = 200

    name: ClassVar[str] = "half-cheetah-vel"
    env_id: ClassVar[str] = "metarl/HalfCheetahVel-v0"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "0-3-h200": {"max_velocity": 3.0, "horizon": 200},
        "0-3-h100": {"max_velocity": 3.0, "horizon": 100},
        "0-2-h200": {"max_velocity": 2.0, "horizon": 200},
        "0-2-h100": {"max_velocity": 2.0, "horizon": 100},
    }
    model_name: ClassVar[str] = "half_cheetah"

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

    def observe(self, qpos: Tensor, qvel: Tensor) -> Tensor:
        """Return all positions but the way covered, and all velocities: ``[B, 17]``."""
        return torch.cat([qpos[:, 1:], qvel], -1)

    def reward_terms(self, before: Tensor, qpos: Tensor, actions: Tensor, tasks: TensorDict) -> dict[str, Tensor]:
        """Return ``x_velocity``, and the rewards for speed and control."""
        velocity = (qpos[:, 0] - before[:, 0]) / self.dt
        return {
            "x_velocity": velocity,
            "reward_velocity": -(velocity - tasks["velocity"]).abs(),
            "reward_ctrl": -0.05 * actions.square().sum(-1),
        }

    def terminated(self, qpos: Tensor) -> Tensor:
        """Never."""
        return torch.zeros(qpos.shape[0], dtype=torch.bool, device=qpos.device)
