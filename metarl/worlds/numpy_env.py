"""A family's worlds in NumPy, vectorised and single, as Gymnasium's wrappers and other libraries expect them."""

from copy import copy
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AutoresetMode, VectorEnv
from tensordict import TensorDict

from metarl.errors import InputError
from metarl.families.family import TaskFamily
from metarl.families.spaces import one_line
from metarl.worlds.vector_env import RENDERING, Info, TaskVectorEnv


class NumpyVectorEnv(VectorEnv[np.ndarray, np.ndarray, np.ndarray]):
    """B environments of one family on the CPU, in NumPy arrays.

    Infos have the form of Gymnasium's own vector environments: ``info["_name"]`` is the mask of the environments that
    ``info["name"]`` applies to, and with ``AutoresetMode.SAME_STEP`` the infos of ended episodes are in
    ``info["final_info"]`` and their last observations in ``info["final_obs"]``. A number that some of the environments
    did not report is 0 there, and the mask is true.

    Attributes:
        worlds: the environments in torch.

    Args:
        family: family of the environments.
        num_envs: number of environments B.
        autoreset_mode: when an ended environment starts its next episode.
        render_mode: ``rgb_array``, or None.

    Raises:
        InputError: as for ``TaskVectorEnv``.
    """

    def __init__(
        self,
        family: TaskFamily,
        num_envs: int,
        autoreset_mode: AutoresetMode = AutoresetMode.NEXT_STEP,
        render_mode: str | None = None,
    ) -> None:
        self.worlds = TaskVectorEnv(family, num_envs, "cpu", autoreset_mode, render_mode)
        self.family, self.num_envs, self.render_mode = family, num_envs, render_mode
        self.metadata = {**self.worlds.metadata, "torch": False}
        self.single_observation_space, self.single_action_space = (
            self.worlds.single_observation_space,
            self.worlds.single_action_space,
        )
        self.observation_space, self.action_space = self.worlds.observation_space, self.worlds.action_space

    @property
    def autoreset_mode(self) -> AutoresetMode:
        """When an ended environment starts its next episode."""
        return self.worlds.autoreset_mode

    @property
    def tasks(self) -> TensorDict:
        """A copy of the task of every environment, ``[B]``."""
        return self.worlds.tasks

    def set_tasks(self, tasks: TensorDict) -> None:
        """Set the task of every environment, from its next reset on; see ``TaskVectorEnv.set_tasks``."""
        self.worlds.set_tasks(tasks)

    @torch.inference_mode()
    def reset(self, *, seed: int | None = None, options: Info | None = None) -> tuple[np.ndarray, Info]:
        """Start an episode in every environment, or where ``options["reset_mask"]`` is true; see ``TaskVectorEnv``."""
        super().reset(seed=seed)
        observations, info = self.worlds.reset(seed=seed, options=options)
        return observations.numpy(), info

    @torch.inference_mode()
    def step(self, actions: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, Info]:
        """Step every environment; return observations, rewards, terminated and truncated ``[B]``, and info.

        Raises:
            InputError: for actions of another shape, or that a discrete space does not have.
        """
        given = torch.from_numpy(checked_actions(self.action_space, actions))
        observations, rewards, terminated, truncated, info = self.worlds.step(given)
        return observations.numpy(), rewards.numpy(), terminated.numpy(), truncated.numpy(), gymnasium_info(info)

    def render(self) -> tuple[np.ndarray, ...] | None:
        """Return a picture uint8 ``[H, W, 3]`` of every environment, or None without a render mode."""
        return self.worlds.render()

    def close_extras(self, **kwargs: Any) -> None:
        """Release the worlds' resources other than memory."""
        self.worlds.close()


def checked_actions(space: spaces.Space[Any], actions: Any) -> np.ndarray:
    """Return actions as an array, if they have the shape of the space and, unless it is a Box, are elements of it.

    Raises:
        InputError: if not. In a Box any number will do: environments clip it to the bounds.
    """
    given = np.asarray(actions)
    if given.shape != space.shape:
        raise InputError(f"actions must have the shape {space.shape}, not {given.shape}")
    if not isinstance(space, spaces.Box) and not space.contains(given):
        raise InputError(f"{one_line(given)} is not in the action space {one_line(space)}")
    return given


def gymnasium_info(info: Info) -> Info:
    """Return an info of tensors ``[B]`` in the form of Gymnasium's vector environments."""
    ended = info.pop("_final_obs", None)
    last = info.pop("final_obs", None)
    terms = {name: values.numpy() for name, values in info.items()}
    if ended is None:
        return _with_masks(terms, None)
    mask = ended.numpy()
    final = np.full(len(mask), None, object)
    for world in mask.nonzero()[0]:
        final[world] = last[world].numpy()
    finals = {"final_obs": final, "_final_obs": mask, "final_info": _with_masks(terms, mask), "_final_info": mask}
    return {**_with_masks(terms, ~mask), **finals}


def _with_masks(terms: dict[str, np.ndarray], mask: np.ndarray | None) -> Info:
    """Return terms ``[B]`` where a mask is true, and 0 elsewhere, each with its mask."""
    found: Info = {}
    for name, values in terms.items():
        found[name] = values if mask is None else np.where(mask, values, np.zeros((), values.dtype))
        found[f"_{name}"] = np.ones(len(values), bool) if mask is None else mask
    return found


class TaskEnv(gymnasium.Env[np.ndarray, Any]):
    """A single environment of a family, in NumPy, with a fixed task or a new one at each reset.

    Args:
        family: family of the environment.
        task: ``[1]``, or None.
        render_mode: ``rgb_array``, or None.
    """

    metadata = RENDERING

    def __init__(self, family: TaskFamily, task: TensorDict | None = None, render_mode: str | None = None) -> None:
        self._worlds = TaskVectorEnv(family, 1, "cpu", AutoresetMode.DISABLED, render_mode)
        self.render_mode = render_mode
        if task is not None:
            self._worlds.set_tasks(task)
        self.family = family
        self.observation_space = self._worlds.single_observation_space
        self.action_space = family.action_space
        self._spec: EnvSpec | None = None

    @property
    def spec(self) -> EnvSpec | None:
        """Gymnasium's description of the environment, with the family's horizon as ``max_episode_steps``."""
        return self._spec

    @spec.setter
    def spec(self, spec: EnvSpec | None) -> None:
        self._spec = copy(spec)
        if self._spec is not None:
            self._spec.max_episode_steps = self.family.horizon

    @property
    def task(self) -> dict[str, np.ndarray]:
        """The parameters of the current task."""
        return {str(key): np.asarray(value[0]) for key, value in self._worlds.tasks.items()}

    @torch.inference_mode()
    def reset(self, *, seed: int | None = None, options: Info | None = None) -> tuple[np.ndarray, Info]:
        """Start an episode, with a new task unless it is fixed or ``options["new_task"]`` is false.

        Returns:
            The first observation, and an empty info.
        """
        super().reset(seed=seed)
        observations, info = self._worlds.reset(seed=seed, options=options)
        return observations.numpy()[0], info

    @torch.inference_mode()
    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, Info]:
        """Step with one action; return observation, reward, terminated, truncated, info (the family's own terms).

        Raises:
            InputError: for an action of another shape, or that a discrete space does not have.
        """
        batch = torch.from_numpy(checked_actions(self.action_space, action).astype(self.action_space.dtype)[None])
        rewards, terminated, truncated, info = self._worlds.advance(batch)
        terms = {key: value.item() if value.ndim == 1 else value[0].numpy() for key, value in info.items()}
        seen = self._worlds.observe().numpy()[0]
        return seen, rewards.item(), terminated.item(), truncated.item(), terms  # type: ignore[return-value]

    def render(self) -> np.ndarray | None:
        """Return a picture uint8 ``[H, W, 3]``, or None without a render mode."""
        frames = self._worlds.render()
        return None if frames is None else frames[0]

    def close(self) -> None:
        """Release the world's resources other than memory."""
        self._worlds.close()
