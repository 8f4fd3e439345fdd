"""A family's worlds as one vector environment of torch tensors on a device."""

from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from tensordict import TensorDict
from torch import Tensor

from metarl.devices.transfer import reading_is_free, send
from metarl.errors import InputError
from metarl.families.family import TaskFamily
from metarl.families.spaces import observed_space
from metarl.seeding import derive_seed

Info = dict[str, Any]
# Rewards, terminated, truncated, info.
Outcome = tuple[Tensor, Tensor, Tensor, Info]
RENDERING: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 20}


class TaskVectorEnv(VectorEnv[Tensor, Tensor, Tensor]):
    """B environments of one family, each with its own task; observations, rewards and ends are torch tensors.

    Tasks are those of ``set_tasks``; until it is called, every reset draws new ones from the family.

    With ``AutoresetMode.SAME_STEP`` an environment whose episode ends starts its next one within the same step, and
    ``info["final_obs"]`` (where ``info["_final_obs"]`` is true) holds the final observation of the old one. With
    ``NEXT_STEP`` it starts the next one in the following step, which ignores the action and gives a reward of 0. With
    ``DISABLED`` ended environments wait for ``reset(options={"reset_mask": ended})``.

    Actions outside a Box action space are clipped to it.

    Attributes:
        capturable: whether a CUDA graph can capture a step.
        generator: generator of the randomness within episodes.

    Args:
        family: family of the environments.
        num_envs: number of environments B.
        device: device of the tensors.
        autoreset_mode: when an ended environment starts its next episode.
        render_mode: ``rgb_array``, or None.

    Raises:
        InputError: for another render mode, no environments, or a device that the family does not support.
    """

    def __init__(
        self,
        family: TaskFamily,
        num_envs: int,
        device: torch.device | str = "cpu",
        autoreset_mode: AutoresetMode = AutoresetMode.SAME_STEP,
        render_mode: str | None = None,
    ) -> None:
        if num_envs < 1:
            raise InputError(f"an environment needs at least one world, not {num_envs}")
        _check_render_mode(family, render_mode)
        self.family = family
        self._horizon = family.horizon
        self.render_mode = render_mode
        self.num_envs = num_envs
        self.device = torch.device(device)
        self.metadata = {"autoreset_mode": autoreset_mode, **RENDERING, "torch": True}
        self.single_observation_space = observed_space(family.observation_space)
        self.single_action_space = family.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(family.action_space, num_envs)
        self._dynamics = family.dynamics(num_envs, self.device)
        if render_mode is not None:
            self._dynamics.prepare_rendering()
        self.capturable = self._dynamics.capturable
        self.generator = torch.Generator(self.device)
        self._task_generator = torch.Generator()
        self._elapsed = torch.zeros(num_envs, dtype=torch.int64, device=self.device)
        self._ended = torch.zeros(num_envs, dtype=torch.bool, device=self.device)
        self._given_tasks: TensorDict | None = None
        self._tasks = TensorDict(batch_size=[num_envs])
        space = self.single_action_space
        bounds = (space.low, space.high) if isinstance(space, gymnasium.spaces.Box) else ()
        self._action_dtype = torch.as_tensor(np.zeros((), space.dtype)).dtype
        self._bounds = tuple(send(torch.as_tensor(bound), self.device) for bound in bounds)

    @property
    def autoreset_mode(self) -> AutoresetMode:
        """When an ended environment starts its next episode."""
        mode: AutoresetMode = self.metadata["autoreset_mode"]
        return mode

    @property
    def tasks(self) -> TensorDict:
        """A copy of the task of every environment, ``[B]``."""
        return self._tasks.clone()

    def set_tasks(self, tasks: TensorDict) -> None:
        """Set the task of every environment, from its next reset on.

        Args:
            tasks: ``[B]``.

        Raises:
            InputError: if the number of tasks differs from the number of environments.
        """
        if tasks.batch_size != torch.Size([self.num_envs]):
            raise InputError(f"{self.num_envs} environments need {self.num_envs} tasks, not {list(tasks.batch_size)}")
        self._given_tasks = tasks.to(self.device)

    def reset(self, *, seed: int | None = None, options: Info | None = None) -> tuple[Tensor, Info]:
        """Start an episode in every environment, or where ``options["reset_mask"]`` (bool ``[B]``) is true.

        Args:
            seed: reseeds all randomness of the environments; without it the random streams continue.
            options: ``reset_mask``, and ``new_task``: whether to draw new tasks where none were set (true by default).

        Returns:
            Observations ``[B, ...]`` and an empty info.
        """
        if seed is not None or self._np_random is None:
            super().reset(seed=seed)
            start = int(self.np_random.integers(2**62)) if seed is None else seed
            self.generator.manual_seed(derive_seed(start, "env"))
            self._task_generator.manual_seed(derive_seed(start, "env tasks"))
        given = options or {}
        mask = given.get("reset_mask")
        everywhere = torch.ones(self.num_envs, dtype=torch.bool, device=self.device)
        where = everywhere if mask is None else torch.as_tensor(mask, dtype=torch.bool, device=self.device)
        self._restart(where, given.get("new_task", True))
        return self._dynamics.observe(), {}

    def step(self, actions: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Info]:
        """Step every environment with one action.

        Args:
            actions: ``[B, *action]``, a tensor or NumPy array.

        Returns:
            Observations ``[B, ...]``, rewards (float32), terminated and truncated (bool) ``[B]``, never both true at
            once, and info: the family's own terms, ``[B, ...]`` each.
        """
        actions = torch.as_tensor(actions, device=self.device, dtype=self._action_dtype)
        outcome = self.advance(actions)
        if self.autoreset_mode is AutoresetMode.NEXT_STEP:
            outcome = self._begin_waiting(*outcome)
        rewards, terminated, truncated, info = outcome
        observations = self._dynamics.observe()
        if self.autoreset_mode is AutoresetMode.SAME_STEP:
            observations = self._begin_ended(observations, terminated | truncated, info)
        return observations, rewards, terminated, truncated, info

    def advance(self, actions: Tensor) -> Outcome:
        """Step every environment with one action, without observing the next state and without autoreset.

        Args:
            actions: ``[B, *action]``, on the device, in the dtype of the action space.

        Returns:
            Rewards, terminated, truncated and info, as from ``step``.
        """
        if self._bounds:
            actions = actions.clamp(*self._bounds)
        rewards, terminated, terms, cut = self._dynamics.step(actions, self._tasks, self.generator)
        self._elapsed += 1
        over = self._elapsed >= self._horizon
        truncated = (over if cut is None else over | cut) & ~terminated
        return rewards, terminated, truncated, dict(terms)

    def observe(self) -> Tensor:
        """Return the observations ``[B, ...]`` of the current states."""
        return self._dynamics.observe()

    def unstable(self) -> Tensor | None:
        """Return a bool ``[B]``, true where the simulation diverged since the last reset; None if none can."""
        return self._dynamics.unstable()

    def render(self) -> tuple[np.ndarray, ...] | None:
        """Return a picture uint8 ``[H, W, 3]`` of every environment, or None without a render mode.

        Raises:
            InputError: if this machine cannot render.
        """
        if self.render_mode is None:
            return None
        return tuple(self._dynamics.render(self._tasks, world) for world in range(self.num_envs))

    def close_extras(self, **kwargs: Any) -> None:
        """Release the worlds' resources other than memory."""
        self._dynamics.close()

    def _begin_ended(self, observations: Tensor, ended: Tensor, info: Info) -> Tensor:
        if not self._worth_restarting(ended):
            return observations
        info["final_obs"], info["_final_obs"] = observations, ended
        self._restart(ended)
        return self._dynamics.observe()

    def _begin_waiting(self, rewards: Tensor, terminated: Tensor, truncated: Tensor, info: Info) -> Outcome:
        """Start the next episode where one ended in the step before; the step itself has no outcome there."""
        waiting = self._ended
        if self._worth_restarting(waiting):
            self._restart(waiting)
            rewards, terminated, truncated = (part.masked_fill(waiting, 0) for part in (rewards, terminated, truncated))
            info = {name: values.masked_fill(_beside(waiting, values), 0) for name, values in info.items()}
        self._ended = terminated | truncated
        return rewards, terminated, truncated, info

    def _worth_restarting(self, mask: Tensor) -> bool:
        """Return whether to restart worlds: the mask is not empty, or reading it would mean waiting for the device.

        New tasks are drawn on the host, which is worth the wait.
        """
        drawn_or_free = self._given_tasks is None or reading_is_free(self.device)
        return not drawn_or_free or bool(mask.any())

    def _restart(self, mask: Tensor, new_task: bool = True) -> None:
        started = len(self._tasks.keys()) > 0
        if new_task or not started:
            tasks = self._given_tasks
            if tasks is None:
                tasks = self.family.sample_tasks(self.num_envs, self._task_generator).to(self.device)
            if started:  # in place, where a recorded graph reads it
                self._tasks.update_(tasks.where(mask, self._tasks))
            else:
                self._tasks = tasks.clone()
        self._dynamics.reset(self._tasks, mask, self.generator)
        self._elapsed.masked_fill_(mask, 0)
        self._ended = self._ended & ~mask


def _beside(mask: Tensor, values: Tensor) -> Tensor:
    """Return a mask ``[B]`` in a shape that broadcasts against values ``[B, ...]``."""
    return mask.view(-1, *[1] * (values.ndim - 1))


def _check_render_mode(family: TaskFamily, render_mode: str | None) -> None:
    if render_mode not in (None, *RENDERING["render_modes"]):
        raise InputError(f"{family.name} has no render mode {render_mode!r}; it has rgb_array")
