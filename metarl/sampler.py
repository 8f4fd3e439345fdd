"""The sampler: the only place that steps environments.

All episodes of all tasks run side by side, one environment each, and nothing leaves the device inside the step loop.
"""

from typing import Any, Protocol

import torch
from gymnasium.vector import AutoresetMode
from tensordict import TensorDict
from torch import Tensor

from metarl.distributions import Distribution
from metarl.errors import RunError
from metarl.family import TaskFamily, unit_scale
from metarl.rollout import Rollout
from metarl.runtime import single_torch_thread
from metarl.seeding import derive_seed, generator
from metarl.vector_env import TaskVectorEnv


class Actor(Protocol):
    """What the sampler asks of a learner or a policy."""

    def act(
        self, state: Any, observations: Tensor, generator: torch.Generator, deterministic: bool = False
    ) -> tuple[Tensor, Distribution]:
        """Choose actions ``[N, E, *action]`` at observations ``[N, E, *observation]``, each task by its own state."""
        ...


class Sampler:
    """Collects rollouts from one family, and keeps the environments between collections.

    Args:
        family: what to sample from.
        device: where environments and rollouts live.
    """

    def __init__(self, family: TaskFamily, device: torch.device | str = "cpu") -> None:
        self.family = family
        self.device = torch.device(device)
        self._envs: dict[int, TaskVectorEnv] = {}
        self._to_env = unit_scale(family.action_space, self.device)

    @torch.no_grad()
    def collect(
        self, actor: Actor, state: Any, tasks: TensorDict, episodes: int, seed: int, deterministic: bool = False
    ) -> Rollout:
        """Run ``episodes`` whole episodes of every task.

        Args:
            actor: chooses the actions.
            state: what ``actor`` knows of each task (adapted parameters, say), stacked ``[N]``.
            tasks: ``[N]``.
            episodes: of each task.
            seed: of everything random in the collection; the same seed gives the same rollout.
            deterministic: take the policy's mode instead of sampling.

        Returns:
            ``Rollout`` of N tasks, on the sampler's device.

        Raises:
            RunError: on the first NaN or infinity, or an unstable simulation, naming task, episode, step and seed.
        """
        with single_torch_thread():
            rollout, env = self._run(actor, state, tasks, episodes, seed, deterministic)
        self._check(rollout, env.unstable(), seed)
        return rollout

    def _run(
        self, actor: Actor, state: Any, tasks: TensorDict, episodes: int, seed: int, deterministic: bool
    ) -> tuple[Rollout, TaskVectorEnv]:
        count = len(tasks)
        env = self._env(count * episodes)
        env.set_tasks(tasks.repeat_interleave(episodes, dim=0))
        observations, _ = env.reset(seed=derive_seed(seed, "environments"))
        noise = generator(seed, "actions", device=self.device)
        storage = _Storage(count, episodes, self.family.horizon)
        alive = torch.ones(count, episodes, dtype=torch.bool, device=self.device)
        final = observations.view(count, episodes, *observations.shape[1:])
        for step in range(self.family.horizon):
            seen = observations.view(count, episodes, *observations.shape[1:])
            actions, distribution = actor.act(state, seen, noise, deterministic)
            observations, rewards, terminated, truncated, _ = env.step(self._to_env(actions).flatten(0, 1))
            ended = (terminated | truncated).view(count, episodes)
            storage.put(step, "observations", seen)
            storage.put(step, "actions", actions)
            storage.put(step, "rewards", rewards.view(count, episodes))
            storage.put(step, "terminated", terminated.view(count, episodes) & alive)
            storage.put(step, "truncated", truncated.view(count, episodes) & alive)
            storage.put(step, "valid", alive)
            for index, tensor in enumerate(distribution.tensors()):
                storage.put(step, f"distribution_{index}", tensor.expand(count, episodes, *tensor.shape[2:]))
            just_ended = (ended & alive).view(count, episodes, *[1] * (seen.ndim - 2))
            final = torch.where(just_ended, observations.view_as(seen), final)
            alive = alive & ~ended
        return storage.rollout(tasks.to(self.device), final, type(distribution)), env

    def _env(self, num_envs: int) -> TaskVectorEnv:
        if num_envs not in self._envs:
            self._envs[num_envs] = TaskVectorEnv(self.family, num_envs, self.device, AutoresetMode.DISABLED)
        return self._envs[num_envs]

    def _check(self, rollout: Rollout, unstable: Tensor | None, seed: int) -> None:
        inside = rollout.valid
        for name in ("actions", "observations", "rewards"):
            values: Tensor = getattr(rollout, name)
            bad = ~values.flatten(3).isfinite().all(-1) if values.ndim > 3 else ~values.isfinite()
            if (bad & inside).any():
                task, episode, step = (bad & inside).nonzero()[0].tolist()
                raise RunError(f"{name} became NaN or infinite in {self._where(rollout, task, episode, seed, step)}")
        if unstable is not None and unstable.any():
            task, episode = unstable.view(inside.shape[:2]).nonzero()[0].tolist()
            raise RunError(f"the simulation became unstable in {self._where(rollout, task, episode, seed)}")

    def _where(self, rollout: Rollout, task: int, episode: int, seed: int, step: int | None = None) -> str:
        parameters = ", ".join(f"{key}={value[task].tolist()}" for key, value in rollout.tasks.items())
        at = "" if step is None else f", step {step}"
        return f"{self.family.name}, task {task} ({parameters}), episode {episode}{at}, seed {seed}"


class _Storage:
    """Tensors ``[N, E, T, ...]``, allocated when their first step is put."""

    def __init__(self, tasks: int, episodes: int, steps: int) -> None:
        self._shape = (tasks, episodes, steps)
        self._tensors: dict[str, Tensor] = {}

    def put(self, step: int, name: str, value: Tensor) -> None:
        if name not in self._tensors:
            self._tensors[name] = value.new_empty((*self._shape, *value.shape[2:]))
        self._tensors[name][:, :, step] = value

    def rollout(self, tasks: TensorDict, final: Tensor, kind: type[Distribution]) -> Rollout:
        names = sorted(name for name in self._tensors if name.startswith("distribution_"))
        distribution = kind(*(self._tensors.pop(name) for name in names))
        log_probs = distribution.log_prob(self._tensors["actions"])
        return Rollout(
            tasks=tasks, final_observations=final, distribution=distribution, log_probs=log_probs, **self._tensors
        )
