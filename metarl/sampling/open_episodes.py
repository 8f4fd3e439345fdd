"""Episodes that a learner acts in, whose steps are kept by whoever steps them."""

from functools import cached_property
from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor

from metarl.devices.graphs import form_of
from metarl.devices.processes import Shard
from metarl.families.spaces import unit_scale
from metarl.learning.learner import Actor
from metarl.numerics.distributions import Distribution
from metarl.seeding import generator


class OpenEpisodes:
    """N x E episodes that start together.

    Attributes:
        working: the actor's open state.
        noise: generator of the actions.
        deterministic: whether the mode of the policy is taken.

    Args:
        actor: chooses the actions.
        state: the actor's state for each task, stacked ``[N]``.
        action_space: action space of one environment.
        shard: the N tasks among those of all processes.
        episodes: E.
        seed: seed of all randomness except the environments'.
        deterministic: take the mode of the policy instead of sampling.
        device: device of all tensors.
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
    ) -> None:
        self.noise = shard.generator(generator(seed, "actions", device=device))
        self.working = actor.open(state, episodes, self.noise, deterministic)
        self.deterministic = deterministic
        self._actor, self._device, self._to_env = actor, device, unit_scale(action_space, device)
        self._actions: Tensor

    @cached_property
    def form(self) -> Any:
        """What the open state has in common with those that it can be joined with, if the actor is capturable."""
        return form_of(self.working)

    def take(self, observations: Tensor, actions: Tensor, distribution: Distribution) -> Tensor:
        """Take actions ``[N, E, *action]`` chosen from a distribution; return them in the environments' units."""
        self._actions = actions
        return self._to_env(actions)

    @torch.no_grad()
    def observe(self, rewards: Tensor, ended: Tensor) -> None:
        """Let the actor see rewards ``[N, E]`` of the actions, and which episodes ended with them, bool ``[N, E]``."""
        self._actor.observe(self.working, self._actions, rewards, ended)
