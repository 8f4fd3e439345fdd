"""The sampler: steps the environments of a family while a learner acts in them.

All episodes of all tasks run side by side, one environment each, and nothing leaves the device inside the step loop.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from gymnasium.vector import AutoresetMode
from tensordict import TensorDict
from torch import Tensor

from metarl.devices.graphs import RECORDERS
from metarl.devices.processes import Shard
from metarl.devices.runtime import single_torch_thread
from metarl.devices.transfer import reading_is_free
from metarl.errors import InputError, RunError
from metarl.families.family import TaskFamily
from metarl.learning.learner import Actor, Learner
from metarl.numerics.noise import check_drawn
from metarl.rollouts.rollout import Rollout
from metarl.sampling.episodes import RunningEpisodes
from metarl.sampling.session import Session
from metarl.sampling.step_graph import StepGraph, StepLoop
from metarl.seeding import derive_seed
from metarl.worlds.vector_env import TaskVectorEnv

Watcher = Callable[[TaskVectorEnv], None]


class Sampler:
    """Collects rollouts from one family, and keeps the environments between collections.

    On CUDA one step of policy and environments is captured as a graph once and replayed from then on.

    Args:
        family: what to sample from.
        device: where environments and rollouts live.
        captured: whether to capture steps on CUDA; the numbers are the same either way.
        render: make environments that can render, for collections with a ``watch``.
    """

    def __init__(
        self, family: TaskFamily, device: torch.device | str = "cpu", captured: bool = True, render: bool = False
    ) -> None:
        self.family = family
        self.device = torch.device(device)
        self._captured = captured and self.device.type in RECORDERS
        self._render_mode = "rgb_array" if render else None
        self._envs: dict[int, TaskVectorEnv] = {}
        # By numbers of tasks and episodes, and whether actions are drawn.
        self._graphs: dict[tuple[int, int, bool], StepGraph] = {}

    def session(self, learner: Learner, tasks: TensorDict, episodes: int, shard: Shard | None = None) -> Session:
        """Return a session of a learner in this family, for ``run``.

        Args:
            learner: trained or not.
            tasks: ``[N]``.
            episodes: E of each task side by side.
            shard: the N tasks among those of all processes; by default they are all that there are.
        """
        return Session(learner, self.family, tasks, episodes, device=self.device, shard=shard)

    def run(self, session: Session, seed: int, watch: Watcher | None = None) -> Rollout:
        """Run one round of a session: a whole episode in each of its rows.

        Args:
            session: in this family, on this device, with the parameters of its tasks.
            seed: of everything random in the round; the same seed gives the same rollout.
            watch: called with the environments after their reset and after each step; steps are then not captured.

        Returns:
            ``Rollout`` of N tasks, on the sampler's device, with as many steps as the longest episode; on CUDA, where
            finding out would mean waiting for the device, as many as the horizon.

        Raises:
            InputError: when the session does not know its tasks' parameters.
            RunError: if there is a NaN, an infinity or an unstable simulation; it names task, episode, step and seed.
        """
        if not session.tasks.keys():
            raise InputError("the sampler needs the tasks' parameters: pass them to session.begin")
        with single_torch_thread():
            env = self._step(session.open(seed), session.tasks, session.shard, seed, watch)
            rollout = session.close()
        self._check(rollout, env.unstable(), seed, session.shard.start)
        return rollout

    def collect(
        self,
        actor: Actor,
        state: Any,
        tasks: TensorDict,
        episodes: int,
        seed: int,
        deterministic: bool = False,
        watch: Watcher | None = None,
        shard: Shard | None = None,
    ) -> Rollout:
        """Run ``episodes`` whole episodes of every task without a session, for episodes that nothing adapts to.

        Args:
            actor: chooses the actions.
            state: what ``actor`` knows of each task, such as adapted parameters, stacked ``[N]``; it is not changed.
            tasks: ``[N]``.
            episodes: of each task.
            seed: of everything random in the collection; the same seed gives the same rollout.
            deterministic: take the policy's mode instead of sampling.
            watch: as in ``run``.
            shard: as in ``session``.

        Returns:
            As ``run``.

        Raises:
            RunError: as ``run``.
        """
        tasks = tasks.to(self.device, non_blocking=True)
        shard = shard or Shard(0, len(tasks), len(tasks))
        with single_torch_thread():
            space, horizon = self.family.action_space, self.family.horizon
            running = RunningEpisodes(actor, state, space, shard, episodes, seed, deterministic, self.device, horizon)
            env = self._step(running, tasks, shard, seed, watch)
            rollout = running.rollout(tasks)
        self._check(rollout, env.unstable(), seed, shard.start)
        return rollout

    @torch.no_grad()
    def _step(
        self, running: RunningEpisodes, tasks: TensorDict, shard: Shard, seed: int, watch: Watcher | None
    ) -> TaskVectorEnv:
        """Step environments of the tasks ``[N]`` until every episode has ended; return the environments."""
        num_tasks, episodes = running.alive.shape
        env = self._env(num_tasks * episodes)
        env.generator = shard.generator(env.generator, episodes)
        env.set_tasks(tasks.repeat_interleave(episodes, dim=0))
        observations, _ = env.reset(seed=derive_seed(seed, "environments"))
        if watch:
            watch(env)
        if self._captured and env.capturable and running.capturable and not watch:
            self._graph(env, running).run(running, observations, self.family.horizon)
        else:
            loop = StepLoop(env, running)
            for _ in range(self.family.horizon):
                observations = loop.advance(observations)
                if watch:
                    watch(env)
                if reading_is_free(self.device) and running.over():
                    break
        running.finish()
        for stream in (running.noise, env.generator):
            check_drawn(stream)
        return env

    def _graph(self, env: TaskVectorEnv, running: RunningEpisodes) -> StepGraph:
        """Return the graph of these steps; it is recorded again if it does not match the actor."""
        key = (*running.alive.shape, running.deterministic)
        if key not in self._graphs or not self._graphs[key].fits(running):
            self._graphs[key] = StepGraph(env, running)
        return self._graphs[key]

    def _env(self, num_envs: int) -> TaskVectorEnv:
        if num_envs not in self._envs:
            self._envs[num_envs] = TaskVectorEnv(
                self.family, num_envs, self.device, AutoresetMode.DISABLED, self._render_mode
            )
        return self._envs[num_envs]

    def _check(self, rollout: Rollout, unstable: Tensor | None, seed: int, first: int) -> None:
        """Raise ``RunError`` if a number is not finite or a simulation unstable; the first task is ``first``."""
        # In causal order within a step, and searched by step first, so that the first bad number is the one reported.
        names = ("observations", "actions", "rewards")
        # A NaN or an infinity makes the sum of all numbers NaN or infinite; else only numbers beyond 1e38 could do so.
        sums = [getattr(rollout, name).sum().double() for name in (*names, "final_observations")]
        signs = [~torch.stack(sums).isfinite().all(), *([] if unstable is None else [unstable.any()])]
        if not torch.stack(signs).any():
            return
        where = partial(self._where, rollout, seed, first)
        bad = torch.stack([_not_finite(getattr(rollout, name), 3) for name in names]) & rollout.valid
        ends = _not_finite(rollout.final_observations, 2)
        if unstable is not None and unstable.any():
            task, episode = unstable.view(rollout.valid.shape[:2]).nonzero()[0].tolist()
            which = f"{int(unstable.sum())} of {unstable.numel()} simulations became unstable, the first"
            raise RunError(f"{which} in {where(task, episode)}")
        if bad.any():
            step, name, task, episode = bad.permute(3, 0, 1, 2).nonzero()[0].tolist()
            raise RunError(f"{names[name]} became NaN or infinite in {where(task, episode, f'step {step}')}")
        if not ends.any():
            return
        task, episode = ends.nonzero()[0].tolist()
        raise RunError(f"observations became NaN or infinite in {where(task, episode, 'after the last step')}")

    def _where(self, rollout: Rollout, seed: int, first: int, task: int, episode: int, when: str = "") -> str:
        parameters = ", ".join(f"{key}={value[task].tolist()}" for key, value in rollout.tasks.items())
        parts = [self.family.name, f"task {first + task} ({parameters})", f"episode {episode}", when, f"seed {seed}"]
        return ", ".join(part for part in parts if part)


def _not_finite(values: Tensor, axes: int) -> Tensor:
    """Return a bool over the first ``axes`` axes: whether any number in the axes after them is NaN or infinite."""
    return ~values.isfinite().flatten(axes).all(-1) if values.ndim > axes else ~values.isfinite()
