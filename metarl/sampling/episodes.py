"""Running episodes: N tasks with E parallel episodes each, acted in, recorded, and returned as a rollout."""

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from gymnasium import spaces
from tensordict import TensorDict
from torch import Tensor

from metarl.devices.graphs import copy_of, form_of, tensors_of
from metarl.devices.processes import Shard
from metarl.devices.transfer import reading_is_free
from metarl.errors import InputError
from metarl.learning.learner import Actor
from metarl.numerics.distributions import Distribution
from metarl.numerics.noise import renewed
from metarl.rollouts.rollout import Rollout, join_steps
from metarl.sampling.open_episodes import OpenEpisodes

# Fields of a rollout that have an entry for every step, besides the distribution.
PER_STEP = ("observations", "actions", "rewards", "terminated", "truncated", "valid", "log_probs")
# Fields that some families report of a step, in its info.
OF_THE_FAMILY = ("success", "best_actions")


class RunningEpisodes(OpenEpisodes):
    """N x E episodes that start together, end independently and are recorded; rows whose episode has ended idle.

    Everything is on one device. On CUDA neither ``act`` nor ``record`` synchronises, and from the second step on both
    work in place, so that a graph can capture them; ``step`` is then a tensor.

    Attributes:
        step: number of steps recorded.
        alive: bool ``[N, E]``, whether an episode is still running.

    Args:
        actor: as in ``OpenEpisodes``, like all others but the last.
        capacity: number of steps to allocate; grows when more are recorded.
    """

    def __init__(
        self,
        actor: Actor,
        state: Any,
        action_space: spaces.Space[Any],
        shard: Shard,
        episodes: int,
        seed: int,
        deterministic: bool,
        device: torch.device,
        capacity: int,
    ) -> None:
        super().__init__(actor, state, action_space, shard, episodes, seed, deterministic, device)
        self.step: int | Tensor = 0
        self._shard = shard
        self.alive = torch.ones(shard.stop - shard.start, episodes, dtype=torch.bool, device=device)
        self.capturable, self._capacity = actor.capturable, capacity
        self._tensors: dict[str, Tensor] = {}
        self._distribution: type[Distribution]
        self._final: Tensor | None = None
        self._finished = False

    @torch.no_grad()
    def act(self, observations: Tensor) -> Tensor:
        """Choose actions at observations ``[N, E, *observation]``; return them in the environments' units."""
        return self.take(observations, *self._actor.act(self.working, observations, self.noise, self.deterministic))

    def take(self, observations: Tensor, actions: Tensor, distribution: Distribution) -> Tensor:
        """Take and record actions ``[N, E, *action]``; return them in the environments' units."""
        self._put("observations", observations)
        self._put("actions", actions)
        for index, tensor in enumerate(distribution.tensors()):
            self._put(f"distribution_{index}", tensor.expand(*self.alive.shape, *tensor.shape[2:]))
        self._distribution = type(distribution)
        return super().take(observations, actions, distribution)

    @torch.no_grad()
    def record(
        self,
        observations: Tensor,
        rewards: Tensor,
        terminated: Tensor,
        truncated: Tensor,
        **known: Tensor,
    ) -> None:
        """Record the outcome of a step.

        Args:
            observations: after it, ``[N, E, *observation]``.
            rewards: float32 ``[N, E]``.
            terminated: bool ``[N, E]``.
            truncated: bool ``[N, E]``.
            known: what else the family reports of the step, ``[N, E, ...]``; see ``OF_THE_FAMILY``.
        """
        ended = (terminated | truncated) & self.alive
        self.observe(rewards, ended)
        outcome = {"rewards": rewards, "terminated": terminated, "truncated": truncated, **known}
        for name, value in outcome.items():
            self._put(name, value)
        if not reading_is_free(self._device) or ended.any():
            self._end(ended, observations)
        self.step += 1

    def over(self) -> bool:
        """Return whether every episode has ended; on CUDA this synchronises, unless ``finish`` was called."""
        return self._finished or not self.alive.any()

    def finish(self) -> None:
        """Mark every episode as ended, after it was stepped to the horizon."""
        self._finished = True

    def _end(self, ended: Tensor, observations: Tensor) -> None:
        """Keep the observations after the last step of the episodes that ended; other rows are filled in later."""
        self.alive &= ~ended
        if self._final is None:
            self._final = observations.clone()
        else:
            mask = ended.view(*ended.shape, *[1] * (observations.ndim - 2))
            self._final.copy_(torch.where(mask, observations, self._final))

    def kept(self) -> "RunningEpisodes":
        """Return episodes with memory of their own, for a graph of a step that is to run others like these."""
        own = copy.copy(self)
        own.noise = renewed(self.noise, torch.Generator(self._device))
        own.working = copy_of(self.working)
        own.alive, own.step = self.alive.clone(), torch.zeros(1, dtype=torch.int64, device=self._device)
        own._tensors, own._final = {}, None
        return own

    def is_like(self, other: "RunningEpisodes") -> bool:
        """Return whether others have the same actor, and states of the same form."""
        same = self._actor is other._actor and self.deterministic == other.deterministic and self._shard == other._shard
        return same and form_of(self.working) == form_of(other.working)

    def start_as(self, other: "RunningEpisodes") -> None:
        """Copy the state of others that have just been opened over that of these."""
        self.noise.set_state(other.noise.get_state())
        for own, given in zip(tensors_of(self.working), tensors_of(other.working), strict=True):
            own.copy_(given)
        self.alive.fill_(True)
        assert isinstance(self.step, Tensor)
        self.step.zero_()

    def take_over(self, other: "RunningEpisodes", steps: int) -> None:
        """Copy the outcome of others that started like these, after all of their steps."""
        assert other._final is not None, "every episode has ended"
        self.working = dataclasses.replace(copy_of(other.working), state=self.working.state)
        self.alive, self.step, self._final = other.alive.clone(), steps, other._final.clone()
        self._tensors, self._distribution = other._tensors, other._distribution

    def _put(self, name: str, value: Tensor) -> None:
        """Store one step's values ``[N, E, ...]`` in a tensor ``[T, N, E, ...]``, allocated at the first step.

        Each step is contiguous, because a copy to a row of every episode costs several times as much.
        """
        if name not in self._tensors:
            # Zeros for the steps of which a family does not report it.
            self._tensors[name] = value.new_zeros(self._capacity, *self.alive.shape, *value.shape[2:])
        stored = self._tensors[name]
        if isinstance(self.step, int) and self.step >= stored.shape[0]:
            self._tensors[name] = stored = torch.cat([stored, torch.zeros_like(stored)])
        if isinstance(self.step, int):
            stored[self.step] = value
        else:
            stored.index_copy_(0, self.step, value.unsqueeze(0))

    def rollout(self, tasks: TensorDict) -> Rollout:
        """Return the episodes of tasks ``[N]``, all of which have ended, each row cut off at its end."""
        assert self._final is not None, "every episode has ended"
        stored = {name: value[: int(self.step)].movedim(0, 2) for name, value in self._tensors.items()}
        return rollout_of_steps(tasks, stored, self._distribution, self._final)


def require_finite(what: str, values: Tensor, alive: Tensor) -> None:
    """Raise ``InputError`` for a NaN or an infinity in values ``[N, E, ...]`` of a running episode.

    Not on a GPU, where the look would make every step wait.
    """
    if values.is_floating_point() and reading_is_free(values.device):
        broken = ~values.flatten(2).isfinite().all(-1) if values.ndim > 2 else ~values.isfinite()
        if (broken & alive).any():
            raise InputError(f"the {what} contain NaN or infinity; find out where the environment makes it")


def rollout_of_steps(
    tasks: TensorDict, stored: Mapping[str, Tensor], kind: type[Distribution], final_observations: Tensor
) -> Rollout:
    """Return complete episodes of tasks ``[N]``, each cut off at its end.

    Args:
        tasks: their parameters, if known.
        stored: ``[N, E, T, ...]`` by name: observations, actions, rewards, terminated, truncated, the tensors of the
            distributions as ``distribution_0``, ``distribution_1`` and so on, and ``OF_THE_FAMILY`` if known.
        kind: class of the distributions.
        final_observations: after each episode's last step, ``[N, E, *observation]``.
    """
    inside = {name: value.clone(memory_format=torch.contiguous_format) for name, value in stored.items()}
    ended = inside["terminated"] | inside["truncated"]
    valid = ended.cumsum(-1) - ended.long() == 0  # no end before this step
    if not reading_is_free(valid.device) or not valid.all():
        for value in inside.values():  # what follows an end must not have any effect, not even as NaN times zero
            value.masked_fill_(~valid.view(*valid.shape, *[1] * (value.ndim - 3)), 0)
    parameters = [inside[name] for name in sorted(stored) if name.startswith("distribution_")]
    distribution = kind(*parameters)
    return Rollout(
        tasks=tasks,
        observations=inside["observations"],
        actions=inside["actions"],
        rewards=inside["rewards"],
        terminated=inside["terminated"],
        truncated=inside["truncated"],
        valid=valid,
        final_observations=final_observations,
        log_probs=distribution.log_prob(inside["actions"]),
        distribution=distribution,
        **{name: inside[name] for name in OF_THE_FAMILY if name in inside},
    )


def join_episodes(rollouts: Sequence[Rollout]) -> Rollout:
    """Join rollouts of the same tasks into one, along the episode axis.

    Rows are as long as the longest, with zeros after an episode's end. ``OF_THE_FAMILY`` is dropped.
    """
    steps = max(rollout.rewards.shape[2] for rollout in rollouts)
    joined = {name: join_steps([getattr(rollout, name) for rollout in rollouts], steps, 1) for name in PER_STEP}
    distributions = [rollout.known_distribution() for rollout in rollouts]
    parameters = zip(*(distribution.tensors() for distribution in distributions), strict=True)
    distribution = type(distributions[0])(*(join_steps(values, steps, 1) for values in parameters))
    final = torch.cat([rollout.final_observations for rollout in rollouts], 1)
    return Rollout(tasks=rollouts[0].tasks, distribution=distribution, final_observations=final, **joined)
