"""A batch of task environments as a ``VecEnv`` of Stable-Baselines3, in NumPy."""

from collections.abc import Iterable, Sequence
from types import MappingProxyType
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from stable_baselines3.common.vec_env import VecEnv
from tensordict import TensorDict
from torch import Tensor

from metarl.agents.baselines.sb3.observations import readable, readable_space
from metarl.errors import InputError
from metarl.families.spaces import unit_scale, unit_space
from metarl.worlds.vector_env import TaskVectorEnv

Wrapper = gymnasium.Wrapper[Any, Any, Any, Any]
Indices = int | Iterable[int] | None
# The info of environments whose episode continues. It is shared, so it must not be modified.
NOTHING: Any = MappingProxyType({})


class Sb3VecEnv(VecEnv):
    """The worlds of a ``TaskVectorEnv``, stepped together, for an algorithm of Stable-Baselines3.

    Actions are in [-1, 1] on a bounded Box space, as everywhere in metarl and as SB3 recommends. Observations that SB3
    does not support, such as scalars and Discrete ones that do not start at 0, are flattened.

    Attributes:
        worlds: the batch of environments.

    Args:
        worlds: a batch with autoreset in the same step.

    Raises:
        InputError: for a batch with another autoreset mode.
    """

    def __init__(self, worlds: TaskVectorEnv) -> None:
        if worlds.metadata["autoreset_mode"] is not AutoresetMode.SAME_STEP:
            raise InputError("Stable-Baselines3 needs worlds with the autoreset mode SAME_STEP")
        self.worlds = worlds
        self._to_env = unit_scale(worlds.single_action_space, worlds.device)
        self._nothing = [NOTHING] * worlds.num_envs
        self._actions = np.empty(0)
        action_space = unit_space(worlds.single_action_space)
        super().__init__(worlds.num_envs, readable_space(worlds.single_observation_space), action_space)

    def set_tasks(self, tasks: TensorDict) -> None:
        """Set the tasks ``[B]`` of all worlds, from the next episode on."""
        self.worlds.set_tasks(tasks)

    def reset(self) -> np.ndarray:
        """Start an episode in every world, from the last seed if one was set since the last reset.

        Returns:
            Observations ``[B, ...]``.
        """
        observations, _ = self.worlds.reset(seed=self._seeds[0])
        self._reset_seeds()
        return self._read(observations)

    def step_async(self, actions: np.ndarray) -> None:
        """Set the actions ``[B, *action]`` of the next step."""
        self._actions = actions

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """Step every world.

        Returns:
            Observations ``[B, ...]``, rewards ``[B]``, whether an episode ended ``[B]``, and a dict for each world:
            where one ended, it has ``terminal_observation`` and ``TimeLimit.truncated``.
        """
        actions = self._to_env(torch.as_tensor(self._actions, device=self.worlds.device))
        observations, rewards, terminated, truncated, info = self.worlds.step(actions)
        ended = (terminated | truncated).numpy(force=True)
        infos = self._infos(ended, truncated.numpy(force=True), info) if ended.any() else self._nothing.copy()
        # SB3 modifies rewards in place, which may be the dynamics' own memory.
        return self._read(observations), rewards.numpy(force=True).copy(), ended, infos

    def _infos(self, ended: np.ndarray, truncated: np.ndarray, info: dict[str, Any]) -> list[dict[str, Any]]:
        last, infos = self._read(info["final_obs"]), self._nothing.copy()
        for world in ended.nonzero()[0].tolist():
            infos[world] = {"terminal_observation": last[world], "TimeLimit.truncated": bool(truncated[world])}
        return infos

    def _read(self, observations: Tensor) -> np.ndarray:
        return readable(self.worlds.single_observation_space, observations).numpy(force=True)

    def close(self) -> None:
        """Close the worlds."""
        self.worlds.close()

    def get_images(self) -> Sequence[np.ndarray | None]:
        """Return a picture of each world, or None without a render mode."""
        return self.worlds.render() or [None] * self.num_envs

    def get_attr(self, attr_name: str, indices: Indices = None) -> list[Any]:
        """Return an attribute of the batch for each of the given worlds."""
        return [getattr(self.worlds, attr_name) for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Indices = None) -> None:
        """Set an attribute of the batch.

        Raises:
            NotImplementedError: if only some worlds are given.
        """
        if set(self._get_indices(indices)) != set(range(self.num_envs)):
            raise NotImplementedError("the worlds of a batch share their attributes; set them for all")
        setattr(self.worlds, attr_name, value)

    def env_method(
        self, method_name: str, *method_args: Any, indices: Indices = None, **method_kwargs: Any
    ) -> list[Any]:
        """Refuse: a world is a row of tensors and has no methods.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError(f"the worlds of a batch have no methods; call .worlds.{method_name} for all of them")

    def env_is_wrapped(self, wrapper_class: type[Wrapper], indices: Indices = None) -> list[bool]:
        """Return False for each of the given worlds: none is wrapped."""
        return [False for _ in self._get_indices(indices)]
