"""The sampler: the only place that steps environments.

All episodes of all tasks run side by side, one environment each, and nothing leaves the device inside the step loop.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from gymnasium.vector import AutoresetMode
from tensordict import TensorDict
from torch import Tensor

from metarl.distributions import Distribution
from metarl.errors import RunError
from metarl.family import TaskFamily
from metarl.rollout import Rollout
from metarl.runtime import single_torch_thread
from metarl.seeding import derive_seed, generator
from metarl.spaces import unit_scale
from metarl.vector_env import TaskVectorEnv


class Actor(Protocol):
    """What the sampler asks of a learner or a policy."""

    def act(
        self, state: Any, observations: Tensor, generator: torch.Generator, deterministic: bool = False
    ) -> tuple[Tensor, Distribution]:
        """Choose actions ``[N, E, *action]`` at observations ``[N, E, *observation]``, each task by its own state."""
        ...


@runtime_checkable
class RememberingActor(Actor, Protocol):
    """An actor whose state changes with every step that it takes."""

    def open(self, state: Any, episodes: int, generator: torch.Generator, deterministic: bool = False) -> Any:
        """Return a working copy of the state, for ``episodes`` episodes of each task side by side.

        ``act`` and ``observe`` change it in place, and nothing else does.
        """
        ...

    def observe(self, working: Any, actions: Tensor, rewards: Tensor) -> None:
        """Take note of the last actions ``[N, E, *action]`` and of the rewards ``[N, E]`` that they met."""
        ...


class Sampler:
    """Collects rollouts from one family, and keeps the environments between collections.

    On CUDA one step of policy and environments is captured as a graph, anew for each collection since the policy's
    parameters are other tensors each time, and replayed.

    Args:
        family: what to sample from.
        device: where environments and rollouts live.
        captured: whether to do so; the numbers are the same without.
        render: make environments that draw themselves, for collections that are watched.
    """

    def __init__(
        self, family: TaskFamily, device: torch.device | str = "cpu", captured: bool = True, render: bool = False
    ) -> None:
        self.family = family
        self.device = torch.device(device)
        self._captured = captured and self.device.type == "cuda"
        self._render_mode = "rgb_array" if render else None
        self._envs: dict[int, TaskVectorEnv] = {}
        self._to_env = unit_scale(family.action_space, self.device)

    @torch.no_grad()
    def collect(
        self,
        actor: Actor,
        state: Any,
        tasks: TensorDict,
        episodes: int,
        seed: int,
        deterministic: bool = False,
        watch: Callable[[TaskVectorEnv], None] | None = None,
    ) -> Rollout:
        """Run ``episodes`` whole episodes of every task.

        Args:
            actor: chooses the actions.
            state: what ``actor`` knows of each task (adapted parameters, say), stacked ``[N]``; it is not changed.
            tasks: ``[N]``.
            episodes: of each task.
            seed: of everything random in the collection; the same seed gives the same rollout.
            deterministic: take the policy's mode instead of sampling.
            watch: called with the environments after their reset and after each step, which is then not captured.

        Returns:
            ``Rollout`` of N tasks, on the sampler's device, with as many steps as the longest episode; on CUDA, where
            to ask would be to wait, as many as the horizon.

        Raises:
            RunError: on the first NaN or infinity, or an unstable simulation, naming task, episode, step and seed.
        """
        with single_torch_thread():
            rollout, env = self._run(actor, state, tasks, episodes, seed, deterministic, watch)
        self._check(rollout, env.unstable(), seed)
        return rollout

    def _run(
        self,
        actor: Actor,
        state: Any,
        tasks: TensorDict,
        episodes: int,
        seed: int,
        deterministic: bool,
        watch: Callable[[TaskVectorEnv], None] | None,
    ) -> tuple[Rollout, TaskVectorEnv]:
        env = self._env(len(tasks) * episodes)
        env.set_tasks(tasks.repeat_interleave(episodes, dim=0))
        observations, _ = env.reset(seed=derive_seed(seed, "environments"))
        noise = generator(seed, "actions", device=self.device)
        storage = _Storage(len(tasks), episodes, self.family.horizon)
        remembering = actor if isinstance(actor, RememberingActor) else None
        if remembering:
            state = remembering.open(state, episodes, noise, deterministic)
        if watch:
            watch(env)

        def advance(step: int | Tensor, observations: Tensor) -> Tensor:
            seen = observations.view(len(tasks), episodes, *observations.shape[1:])
            actions, distribution = actor.act(state, seen, noise, deterministic)
            observations, rewards, terminated, truncated, info = env.step(self._to_env(actions).flatten(0, 1))
            if remembering:
                remembering.observe(state, actions, rewards.view(len(tasks), episodes))
            storage.put(step, "observations", seen)
            storage.put(step, "actions", actions)
            storage.put(step, "rewards", rewards)
            storage.put(step, "terminated", terminated)
            storage.put(step, "truncated", truncated)
            if "success" in info:
                storage.put(step, "success", info["success"].bool())
            for index, tensor in enumerate(distribution.tensors()):
                storage.put(step, f"distribution_{index}", tensor.expand(len(tasks), episodes, *tensor.shape[2:]))
            storage.distribution = type(distribution)
            if watch:
                watch(env)
            return observations

        observations = advance(0, observations)
        if self._captured and env.capturable and not watch:
            observations = _replay(advance, observations, self.family.horizon - 1, [noise, env.generator])
        else:
            for step in range(1, self.family.horizon):
                if self.device.type == "cpu" and storage.over(step):  # elsewhere to ask would be to wait
                    break
                observations = advance(step, observations)
        return storage.rollout(tasks.to(self.device), observations), env

    def _env(self, num_envs: int) -> TaskVectorEnv:
        if num_envs not in self._envs:
            self._envs[num_envs] = TaskVectorEnv(
                self.family, num_envs, self.device, AutoresetMode.DISABLED, self._render_mode
            )
        return self._envs[num_envs]

    def _check(self, rollout: Rollout, unstable: Tensor | None, seed: int) -> None:
        if unstable is not None and unstable.any():
            task, episode = unstable.view(rollout.valid.shape[:2]).nonzero()[0].tolist()
            which = f"{int(unstable.sum())} of {unstable.numel()} simulations became unstable, the first"
            raise RunError(f"{which} in {self._where(rollout, task, episode, seed)}")
        # In the order in which one leads to the next within a step; steps come first, so that the cause is found.
        names = ("observations", "actions", "rewards")
        bad = torch.stack([_not_finite(getattr(rollout, name), 3) for name in names]) & rollout.valid
        if bad.any():
            step, name, task, episode = bad.permute(3, 0, 1, 2).nonzero()[0].tolist()
            where = self._where(rollout, task, episode, seed, f"step {step}")
            raise RunError(f"{names[name]} became NaN or infinite in {where}")
        if (ends := _not_finite(rollout.final_observations, 2)).any():
            task, episode = ends.nonzero()[0].tolist()
            where = self._where(rollout, task, episode, seed, "after the last step")
            raise RunError(f"observations became NaN or infinite in {where}")

    def _where(self, rollout: Rollout, task: int, episode: int, seed: int, when: str = "") -> str:
        parameters = ", ".join(f"{key}={value[task].tolist()}" for key, value in rollout.tasks.items())
        parts = [self.family.name, f"task {task} ({parameters})", f"episode {episode}", when, f"seed {seed}"]
        return ", ".join(part for part in parts if part)


def _not_finite(values: Tensor, axes: int) -> Tensor:
    """Return a bool over the first ``axes`` axes: whether any number behind them is NaN or infinite."""
    return ~values.isfinite().flatten(axes).all(-1) if values.ndim > axes else ~values.isfinite()


def _replay(
    advance: Callable[[int | Tensor, Tensor], Tensor],
    observations: Tensor,
    steps: int,
    generators: Sequence[torch.Generator],
) -> Tensor:
    """Capture one step, which reads and writes memory that stays, and replay it from step 1 on."""
    step = torch.ones((), dtype=torch.int64, device=observations.device)
    graph = torch.cuda.CUDAGraph()
    for stream in generators:
        graph.register_generator_state(stream)
    with torch.cuda.graph(graph):
        observations.copy_(advance(step, observations))
        step += 1
    for _ in range(steps):
        graph.replay()
    return observations


class _Storage:
    """Tensors ``[N, E, T, ...]``, allocated when their first step is put; ``distribution`` is the policy's kind."""

    distribution: type[Distribution]

    def __init__(self, tasks: int, episodes: int, steps: int) -> None:
        self._shape = (tasks, episodes, steps)
        self._alive = torch.ones(tasks, episodes, dtype=torch.bool)
        self._tensors: dict[str, Tensor] = {}

    def put(self, step: int | Tensor, name: str, value: Tensor) -> None:
        """Store one step's values, ``[N, E, ...]`` or (one dimension) ``[B]``."""
        value = value.view(self._shape[:2]) if value.ndim == 1 else value
        if name not in self._tensors:
            self._tensors[name] = value.new_zeros((*self._shape, *value.shape[2:]))
        self._tensors[name][:, :, step] = value

    def over(self, step: int) -> bool:
        """Return whether every episode ended before ``step``; to be asked at each, from step 1 on.

        If so, the tensors are cut there.
        """
        terminated, truncated = (self._tensors[name][:, :, step - 1] for name in ("terminated", "truncated"))
        self._alive &= ~(terminated | truncated)
        if self._alive.any():
            return False
        self._tensors = {name: value[:, :, :step] for name, value in self._tensors.items()}
        return True

    def rollout(self, tasks: TensorDict, last: Tensor) -> Rollout:
        """Cut each row at the end of its episode; ``last`` ``[B, ...]`` are the observations after the last step."""
        stored = self._tensors
        ended = stored["terminated"] | stored["truncated"]
        valid = ended.cumsum(-1) - ended.long() == 0  # no end before this step
        following = torch.cat([stored["observations"][:, :, 1:], last.view_as(stored["observations"][:, :, :1])], 2)
        rows = torch.arange(ended.shape[0])[:, None], torch.arange(ended.shape[1])[None]
        final = following[(*rows, valid.sum(-1) - 1)]
        inside = {  # what stands behind an episode's end must not reach anything, not even as NaN times zero
            name: value.masked_fill(~valid.view(*valid.shape, *[1] * (value.ndim - 3)), 0)
            for name, value in stored.items()
        }
        distribution = self.distribution(*(inside[name] for name in sorted(stored) if name.startswith("distribution_")))
        return Rollout(
            tasks=tasks,
            observations=inside["observations"],
            actions=inside["actions"],
            rewards=inside["rewards"],
            terminated=inside["terminated"],
            truncated=inside["truncated"],
            valid=valid,
            final_observations=final,
            log_probs=distribution.log_prob(inside["actions"]),
            distribution=distribution,
            success=inside.get("success"),
        )
