"""A family's worlds as Gymnasium environments: vectorised on a device, or single in NumPy."""

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from tensordict import TensorDict
from torch import Tensor

from metarl.errors import InputError
from metarl.family import TaskFamily, make_family
from metarl.seeding import derive_seed
from metarl.spaces import observed_space
from metarl.transfer import reading_is_free, send

Info = dict[str, Any]
RENDERING: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 20}


class TaskVectorEnv(VectorEnv[Tensor, Tensor, Tensor]):
    """B environments of one family, each with its own task; observations, rewards and ends are torch tensors.

    Tasks are those of ``set_tasks``; until it is called, every reset draws new ones from the family.

    With ``AutoresetMode.SAME_STEP`` an environment whose episode ends starts its next one within the same step, and
    ``info["final_obs"]`` (where ``info["_final_obs"]`` is true) holds the final observation of the old one. With
    ``AutoresetMode.DISABLED`` ended environments wait for ``reset(options={"reset_mask": ended})``.

    Actions outside a Box action space are clipped to it.

    Attributes:
        capturable: whether a CUDA graph can capture a step.
        generator: generator of the randomness within episodes.

    Args:
        family: family of the environments.
        num_envs: number of environments B.
        device: device of the tensors.
        autoreset_mode: ``SAME_STEP`` or ``DISABLED``.
        render_mode: ``rgb_array``, or None.

    Raises:
        InputError: for another autoreset or render mode, no environments, or a device that the family does not support.
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
        if autoreset_mode is AutoresetMode.NEXT_STEP:
            raise InputError("autoreset_mode must be SAME_STEP or DISABLED: NEXT_STEP wastes a step of every episode")
        _check_render_mode(family, render_mode)
        self.family = family
        self.render_mode = render_mode
        self.num_envs = num_envs
        self.device = torch.device(device)
        self.metadata = {"autoreset_mode": autoreset_mode, **RENDERING, "torch": True}
        self.single_observation_space = observed_space(family.observation_space)
        self.single_action_space = family.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(family.action_space, num_envs)
        self._autoreset = autoreset_mode is AutoresetMode.SAME_STEP
        self._dynamics = family.dynamics(num_envs, self.device)
        if render_mode is not None:
            self._dynamics.prepare_rendering()
        self.capturable = self._dynamics.capturable
        self.generator = torch.Generator(self.device)
        self._task_generator = torch.Generator()
        self._elapsed = torch.zeros(num_envs, dtype=torch.int64, device=self.device)
        self._given_tasks: TensorDict | None = None
        self._tasks = TensorDict(batch_size=[num_envs])
        space = self.single_action_space
        bounds = (space.low, space.high) if isinstance(space, gymnasium.spaces.Box) else ()
        self._action_dtype = torch.as_tensor(np.zeros((), space.dtype)).dtype
        self._bounds = tuple(send(torch.as_tensor(bound), self.device) for bound in bounds)

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
            raise InputError(f"{self.num_envs} environments need as many tasks, not {list(tasks.batch_size)}")
        self._given_tasks = tasks.to(self.device)

    def reset(self, *, seed: int | None = None, options: Info | None = None) -> tuple[Tensor, Info]:
        """Start an episode in every environment, or where ``options["reset_mask"]`` (bool ``[B]``) is true.

        Args:
            seed: reseeds all randomness of the environments; without it the random streams continue.
            options: ``reset_mask``, optional.

        Returns:
            Observations ``[B, ...]`` and an empty info.
        """
        if seed is not None or self._np_random is None:
            super().reset(seed=seed)
            start = int(self.np_random.integers(2**62)) if seed is None else seed
            self.generator.manual_seed(derive_seed(start, "env"))
            self._task_generator.manual_seed(derive_seed(start, "env tasks"))
        mask = (options or {}).get("reset_mask")
        everywhere = torch.ones(self.num_envs, dtype=torch.bool, device=self.device)
        self._restart(everywhere if mask is None else torch.as_tensor(mask, dtype=torch.bool, device=self.device))
        return self._dynamics.observe(), {}

    def step(self, actions: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Info]:
        """Step every environment with one action.

        Args:
            actions: ``[B, *action]``, a tensor or NumPy array.

        Returns:
            Observations ``[B, ...]``, rewards (float32), terminated and truncated (bool) ``[B]``, never both true at
            once, and info: the family's own terms, ``[B]`` each.
        """
        actions = torch.as_tensor(actions, device=self.device, dtype=self._action_dtype)
        if self._bounds:
            actions = actions.clamp(*self._bounds)
        rewards, terminated, terms, cut = self._dynamics.step(actions, self._tasks, self.generator)
        self._elapsed += 1
        over = self._elapsed >= self.family.horizon
        truncated = (over if cut is None else over | cut) & ~terminated
        observations, info = self._dynamics.observe(), dict(terms)
        if self._autoreset:
            observations = self._begin_ended(observations, terminated | truncated, info)
        return observations, rewards, terminated, truncated, info

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
        # New tasks are drawn on the host, and not for nothing.
        if (reading_is_free(self.device) or self._given_tasks is None) and not ended.any():
            return observations
        info["final_obs"], info["_final_obs"] = observations, ended
        self._restart(ended)
        return self._dynamics.observe()

    def _restart(self, mask: Tensor) -> None:
        tasks = self._given_tasks
        if tasks is None:
            tasks = self.family.sample_tasks(self.num_envs, self._task_generator).to(self.device)
        if len(self._tasks.keys()):  # in its place, where a recorded graph reads it
            self._tasks.update_(tasks.where(mask, self._tasks))
        else:
            self._tasks = tasks.clone()
        self._dynamics.reset(self._tasks, mask, self.generator)
        self._elapsed.masked_fill_(mask, 0)


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

    @property
    def task(self) -> dict[str, np.ndarray]:
        """The parameters of the current task."""
        return {str(key): np.asarray(value[0]) for key, value in self._worlds.tasks.items()}

    def reset(self, *, seed: int | None = None, options: Info | None = None) -> tuple[np.ndarray, Info]:
        """Start an episode; return its first observation and an empty info."""
        super().reset(seed=seed)
        observations, info = self._worlds.reset(seed=seed)
        return observations[0].numpy(), info

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, Info]:
        """Step with one action; return observation, reward, terminated, truncated, info (the family's own terms)."""
        batch = torch.as_tensor(np.asarray(action)[None])
        observations, rewards, terminated, truncated, info = self._worlds.step(batch)
        terms = {key: value[0].item() for key, value in info.items()}
        return observations[0].numpy(), rewards[0].item(), bool(terminated[0]), bool(truncated[0]), terms

    def render(self) -> np.ndarray | None:
        """Return a picture uint8 ``[H, W, 3]``, or None without a render mode."""
        frames = self._worlds.render()
        return None if frames is None else frames[0]

    def close(self) -> None:
        """Release the world's resources other than memory."""
        self._worlds.close()


def _check_render_mode(family: TaskFamily, render_mode: str | None) -> None:
    if render_mode not in (None, *RENDERING["render_modes"]):
        raise InputError(f"{family.name} has no render mode {render_mode!r}; it has rgb_array")


def _split(family: str, preset: str | None, arguments: Mapping[str, Any]) -> tuple[TaskFamily, TensorDict | None]:
    """Separate a family's settings from task parameters, which share a namespace in ``gymnasium.make``."""
    names = set(make_family(family, preset).task_space)
    made = make_family(family, preset, **{key: value for key, value in arguments.items() if key not in names})
    task = {key: value for key, value in arguments.items() if key in names}
    return made, made.make_task(task) if task else None


def make_env(family: str, preset: str | None = None, render_mode: str | None = None, **arguments: Any) -> TaskEnv:
    """Make a single environment, as ``gymnasium.make("metarl/HalfCheetahVel-v0", velocity=1.5)`` does.

    Args:
        family: name of the family.
        preset: one of its presets.
        render_mode: ``rgb_array``, or None.
        arguments: task parameters (all of them, or none to draw a task at each reset) and settings of the family.

    Raises:
        InputError: for unknown names and values out of range.
    """
    return TaskEnv(*_split(family, preset, arguments), render_mode)


def make_vector_env(
    num_envs: int,
    family: str,
    preset: str | None = None,
    device: torch.device | str = "cpu",
    autoreset_mode: AutoresetMode = AutoresetMode.SAME_STEP,
    render_mode: str | None = None,
    **arguments: Any,
) -> TaskVectorEnv:
    """Make a batched environment, as ``gymnasium.make_vec("metarl/HalfCheetahVel-v0", num_envs=64)`` does.

    Args:
        num_envs: number of environments.
        family: name of the family.
        preset: one of its presets.
        device: device of the tensors.
        autoreset_mode: ``SAME_STEP`` or ``DISABLED``.
        render_mode: ``rgb_array``, or None.
        arguments: task parameters (the same task everywhere) and settings of the family.

    Raises:
        InputError: for unknown names and values out of range.
    """
    made, task = _split(family, preset, arguments)
    env = TaskVectorEnv(made, num_envs, device, autoreset_mode, render_mode)
    if task is not None:
        env.set_tasks(task.expand(num_envs))
    return env
