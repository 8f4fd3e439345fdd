"""Trials as Gymnasium environments: several episodes of the same task in a row, for algorithms of other libraries.

An agent with a memory that is trained on trials learns to explore in the first episodes and to exploit in the later
ones (RL²: Duan et al. 2016, section 2.2).
"""

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from tensordict import TensorDict
from torch import Tensor

from metarl.errors import InputError
from metarl.families.family import TaskFamily
from metarl.families.spaces import features, flat_box, require_actions, require_observations
from metarl.validation import require_count
from metarl.worlds.numpy_env import TaskEnv, gymnasium_info
from metarl.worlds.vector_env import Info, TaskVectorEnv

SAME_TASK = {"new_task": False}


def trial_space(observation_space: spaces.Space[Any], action_space: spaces.Space[Any]) -> spaces.Box:
    """Return the space of a trial's observations: observation, last action, last reward and start flag, flattened.

    Raises:
        InputError: for a space whose elements do not have a fixed size.
    """
    require_observations(observation_space)
    require_actions(action_space)
    reward, start = spaces.Box(-np.inf, np.inf, (1,)), spaces.Box(0.0, 1.0, (1,))
    return flat_box(spaces.Tuple((observation_space, action_space, reward, start)))


class TrialEnv(gymnasium.Wrapper[np.ndarray, Any, Any, Any]):
    """A trial of several episodes of one task as one episode, around any single environment.

    Observations are the environment's, the last action and the last reward of the trial (zeros at its first step) and a
    flag that is 1 at the start of each episode, flattened as by ``gymnasium.spaces.flatten``. An episode that ends is
    followed by the next one within the same step. The trial ends with its last episode, terminated or truncated as that
    is. ``info["episode_return"]`` is there where an episode ended.

    Args:
        env: a ``TaskEnv``, which keeps its task within a trial and draws a new one for the next, or any environment.
        episodes: number of episodes of a trial.
        new_task: called with the environment before each trial, to set the task of one that is not a ``TaskEnv``.

    Raises:
        InputError: for fewer than one episode, or a space without a fixed size.
    """

    def __init__(
        self,
        env: gymnasium.Env[Any, Any],
        episodes: int,
        new_task: Callable[[gymnasium.Env[Any, Any]], None] | None = None,
    ) -> None:
        require_count("episodes", episodes)
        super().__init__(env)
        self.episodes = episodes
        self.observation_space = trial_space(env.observation_space, env.action_space)
        self._new_task = new_task
        self._same_task: Info | None = SAME_TASK if isinstance(env.unwrapped, TaskEnv) else None
        self._no_action = np.zeros(spaces.flatdim(env.action_space), np.float32)
        self._episode, self._return = 0, 0.0

    def reset(self, *, seed: int | None = None, options: Info | None = None) -> tuple[np.ndarray, Info]:
        """Start a trial with a new task."""
        if self._new_task is not None:
            self._new_task(self.env)
        observation, info = self.env.reset(seed=seed, options=options)
        self._episode, self._return = 0, 0.0
        return self._joined(observation, self._no_action, 0.0, start=True), info

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, Info]:
        """Step; start the next episode if one ends before the trial does."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        taken = np.asarray(spaces.flatten(self.env.action_space, action), np.float32)
        self._return += float(reward)
        if not (terminated or truncated):
            return self._joined(observation, taken, reward), float(reward), False, False, info
        info = {**info, "episode_return": self._return}
        self._episode, self._return = self._episode + 1, 0.0
        if self._episode == self.episodes:
            return self._joined(observation, taken, reward), float(reward), terminated, truncated, info
        observation, _ = self.env.reset(options=self._same_task)
        return self._joined(observation, taken, reward, start=True), float(reward), False, False, info

    def _joined(self, observation: Any, action: np.ndarray, reward: Any, start: bool = False) -> np.ndarray:
        seen = np.asarray(spaces.flatten(self.env.observation_space, observation), np.float32)
        return np.concatenate([seen, action, [reward, start]]).astype(np.float32)


class TrialVectorEnv(VectorEnv[np.ndarray, np.ndarray, np.ndarray]):
    """B trials of a family that are stepped together, in NumPy; each as in ``TrialEnv``.

    Attributes:
        worlds: the environments in torch.

    Args:
        family: family of the environments.
        num_envs: number of trials B.
        episodes: number of episodes of a trial.
        autoreset_mode: ``NEXT_STEP``: the step after the end of a trial starts the next one; ``DISABLED``: ended
            trials wait for ``reset(options={"reset_mask": ended})``.
        render_mode: ``rgb_array``, or None.

    Raises:
        InputError: for fewer than one episode or environment, or another autoreset mode.
    """

    def __init__(
        self,
        family: TaskFamily,
        num_envs: int,
        episodes: int,
        autoreset_mode: AutoresetMode = AutoresetMode.NEXT_STEP,
        render_mode: str | None = None,
    ) -> None:
        require_count("episodes", episodes)
        if autoreset_mode is AutoresetMode.SAME_STEP:
            raise InputError("the autoreset mode of trials must be NEXT_STEP or DISABLED")
        self.worlds = TaskVectorEnv(family, num_envs, "cpu", AutoresetMode.DISABLED, render_mode)
        self.num_envs, self.render_mode = num_envs, render_mode
        self.episodes, self.autoreset_mode = episodes, autoreset_mode
        self.metadata = {**self.worlds.metadata, "autoreset_mode": autoreset_mode, "torch": False}
        self.single_action_space = family.action_space
        self.single_observation_space = trial_space(family.observation_space, family.action_space)
        self.action_space = self.worlds.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self._episode = torch.zeros(num_envs, dtype=torch.int64)
        self._actions = torch.zeros(num_envs, spaces.flatdim(family.action_space))
        self._rewards, self._returns = torch.zeros(2, num_envs)
        self._start, self._over = torch.ones(num_envs, dtype=torch.bool), torch.zeros(num_envs, dtype=torch.bool)

    def set_tasks(self, tasks: TensorDict) -> None:
        """Set the task of every environment, from its next trial on; see ``TaskVectorEnv.set_tasks``."""
        self.worlds.set_tasks(tasks)

    @torch.inference_mode()
    def reset(self, *, seed: int | None = None, options: Info | None = None) -> tuple[np.ndarray, Info]:
        """Start a trial in every environment, or where ``options["reset_mask"]`` is true."""
        super().reset(seed=seed)
        mask = (options or {}).get("reset_mask")
        everywhere = torch.ones(self.num_envs, dtype=torch.bool)
        self._begin(everywhere if mask is None else torch.as_tensor(mask, dtype=torch.bool), seed)
        return self._joined().numpy(), {}

    @torch.inference_mode()
    def step(self, actions: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, Info]:
        """Step every environment; return observations, rewards, terminated and truncated ``[B]``, and info."""
        given, waiting = torch.from_numpy(np.asarray(actions)), self._over
        rewards, terminated, truncated, info = self.worlds.step(given)[1:]
        rewards = rewards.masked_fill(waiting, 0)
        ended = (terminated | truncated) & ~waiting
        self._episode = self._episode + ended
        self._returns = self._returns + rewards
        over = ended & (self._episode == self.episodes)
        self._actions, self._rewards, self._start = features(self.single_action_space, given), rewards, ended & ~over
        info = gymnasium_info({name: values.masked_fill(waiting, 0) for name, values in info.items()})
        if ended.any():
            info |= {"episode_return": self._returns.numpy(), "_episode_return": ended.numpy()}
            self._returns = self._returns.masked_fill(ended, 0)
            self.worlds.reset(options={"reset_mask": self._start, **SAME_TASK})
        if self.autoreset_mode is AutoresetMode.NEXT_STEP:
            if waiting.any():
                self._begin(waiting)
            self._over = over
        else:
            self._over = waiting | over
        return self._joined().numpy(), rewards.numpy(), (terminated & over).numpy(), (truncated & over).numpy(), info

    def _begin(self, where: Tensor, seed: int | None = None) -> None:
        """Start trials where a mask is true."""
        self.worlds.reset(seed=seed, options={"reset_mask": where})
        for memory in (self._episode, self._actions, self._rewards, self._returns):
            memory[where] = 0
        self._start, self._over = self._start | where, self._over & ~where

    def _joined(self) -> Tensor:
        seen = features(self.worlds.single_observation_space, self.worlds.observe())
        return torch.cat([seen, self._actions, self._rewards[:, None], self._start[:, None]], -1).float()

    def render(self) -> tuple[np.ndarray, ...] | None:
        """Return a picture uint8 ``[H, W, 3]`` of every environment, or None without a render mode."""
        return self.worlds.render()

    def close_extras(self, **kwargs: Any) -> None:
        """Release the worlds' resources other than memory."""
        self.worlds.close()
