"""Robots with a task: the base class of MuJoCo families, and their worlds on a simulation engine.

A family is a robot (``metarl.envs.locomotion.robots``) and the reward of a task. Rewards and termination are small
torch functions of B worlds, in the engine's precision.
"""

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from gymnasium import spaces
from tensordict import TensorDict
from torch import Tensor

from metarl.devices.transfer import send
from metarl.envs.locomotion.robots import Robot
from metarl.families.family import Dynamics, TaskFamily, Transition
from metarl.numerics.noise import draw_rows

if TYPE_CHECKING:
    import mujoco

    from metarl.envs.simulation.batched import BatchedSim
    from metarl.envs.simulation.rendering import StateRenderer


class LocomotionFamily(TaskFamily):
    """A robot of Gymnasium's MuJoCo suite, with rewards that depend on the task.

    Attributes:
        robot: the robot.
        model_fields: fields of the MuJoCo model that differ between tasks.
    """

    robot: ClassVar[Robot]
    model_fields: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def reward_terms(self, velocity: Tensor, qpos: Tensor, actions: Tensor, tasks: TensorDict) -> dict[str, Tensor]:
        """Return named terms ``[B]`` of a step; those whose names start with ``reward_`` add up to the reward.

        Args:
            velocity: ``[B, 1 or 2]``, mean horizontal velocity over the step, in m/s.
            qpos: positions ``[B, nq]`` after the step.
            actions: ``[B, nu]``, inside the action space.
            tasks: ``[B]``.
        """

    def observe(self, qpos: Tensor, qvel: Tensor) -> Tensor:
        """Return observations ``[B, D]`` of positions ``[B, nq]`` and velocities ``[B, nv]``."""
        return self.robot.observe(qpos, qvel)

    def terminated(self, qpos: Tensor, qvel: Tensor) -> Tensor:
        """Return a bool ``[B]``: whether episodes terminate in this state."""
        return self.robot.fallen(qpos, qvel)

    def field_values(self, tasks: TensorDict) -> Mapping[str, Tensor]:
        """Return the values ``[B, ...]`` of ``model_fields`` in each world."""
        return {}

    @property
    def model(self) -> "mujoco.MjModel":
        """The compiled model, which is shared and must not be modified."""
        from metarl.envs.simulation.batched import gymnasium_model

        return gymnasium_model(self.robot.model_name)

    @property
    def frame_skip(self) -> int:
        """Simulation steps per environment step."""
        return self.robot.frame_skip

    @property
    def dt(self) -> float:
        """Simulated seconds per environment step."""
        return float(self.model.opt.timestep) * self.frame_skip

    @property
    def observation_space(self) -> spaces.Box:
        """Positions and velocities, as selected by ``observe``, without contact forces."""
        width = self.observe(torch.zeros(1, self.model.nq), torch.zeros(1, self.model.nv)).shape[1]
        return spaces.Box(-np.inf, np.inf, (width,), np.float32)

    @property
    def action_space(self) -> spaces.Box:
        """Control of each actuator."""
        low, high = self.model.actuator_ctrlrange.astype(np.float32).T
        return spaces.Box(low, high, dtype=np.float32)

    def check_device(self, device: torch.device) -> None:
        """Check that the engine for ``device`` is installed and runs there."""
        from metarl.envs.simulation.batched import check_engine

        check_engine(device)

    def dynamics(self, num_envs: int, device: torch.device) -> Dynamics:
        """Make ``num_envs`` simulations on ``device``."""
        from metarl.envs.simulation.batched import make_simulation

        return LocomotionDynamics(self, make_simulation(self.model, num_envs, device, self.model_fields))


class LocomotionDynamics(Dynamics):
    """The worlds of a ``LocomotionFamily`` on a simulation engine.

    A world whose episode has terminated need not be simulated until its reset.
    """

    def __init__(self, family: LocomotionFamily, simulation: "BatchedSim") -> None:
        self.simulation = simulation
        self._family = family
        self._renderer: StateRenderer | None = None
        at_rest = torch.as_tensor(family.model.qpos0, dtype=simulation.qpos.dtype)
        self._qpos0 = send(at_rest, simulation.qpos.device)
        self._dt = family.dt
        self._place = simulation.centre_of_mass if family.robot.by_mass else simulation.qpos
        self._fallen = torch.zeros(len(simulation.qpos), dtype=torch.bool, device=simulation.qpos.device)

    def reset(self, tasks: TensorDict, mask: Tensor, generator: torch.Generator) -> None:
        """Start episodes at the model's rest position plus noise, as Gymnasium's environments do."""
        simulation, family = self.simulation, self._family
        if family.model_fields:
            simulation.set_fields(mask, family.field_values(tasks))
        robot = family.robot
        offsets = _noise(simulation.qpos, generator, gaussian=False)
        velocities = _noise(simulation.qvel, generator, robot.gaussian)
        simulation.restart(mask, self._qpos0 + robot.position_noise * offsets, robot.velocity_noise * velocities)
        self._fallen &= ~mask

    def step(self, actions: Tensor, tasks: TensorDict, generator: torch.Generator) -> Transition:
        """Hold the actions for ``frame_skip`` simulation steps."""
        simulation, family = self.simulation, self._family
        ground = self._place[:, : family.robot.plane]
        before = ground.clone()
        simulation.ctrl.copy_(actions)
        simulation.step(family.frame_skip, ~self._fallen)
        terms = family.reward_terms((ground - before) / self._dt, simulation.qpos, actions, tasks)
        rewards = sum(value for key, value in terms.items() if key.startswith("reward_"))
        assert isinstance(rewards, Tensor)
        terminated = family.terminated(simulation.qpos, simulation.qvel)
        self._fallen |= terminated
        return Transition(rewards.float(), terminated, terms)

    def observe(self) -> Tensor:
        """Return observations ``[B, D]`` in float32."""
        return self._family.observe(self.simulation.qpos, self.simulation.qvel).float()

    def unstable(self) -> Tensor:
        """Return a bool ``[B]``, true where the simulation diverged during the episode."""
        self.simulation.check()
        return self.simulation.unstable()

    def render(self, tasks: TensorDict, world: int) -> np.ndarray:
        """Render the robot with MuJoCo's own renderer, from a camera that follows it."""
        if self._renderer is None:
            from metarl.envs.simulation.rendering import StateRenderer

            self._renderer = StateRenderer(self._family.model)
        return self._renderer.draw(self.simulation.qpos[world].cpu().numpy())

    def close(self) -> None:
        """Release the renderer's OpenGL context."""
        if self._renderer is not None:
            self._renderer.close()


def _noise(like: Tensor, generator: torch.Generator, gaussian: bool) -> Tensor:
    """Draw standard normal numbers, or uniform ones from [-1, 1), shaped like a tensor."""
    if gaussian:
        return draw_rows(torch.randn, like.shape, generator, device=like.device, dtype=like.dtype)
    return 2 * draw_rows(torch.rand, like.shape, generator, device=like.device, dtype=like.dtype) - 1
