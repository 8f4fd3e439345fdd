"""What one collection of episodes leaves behind: tensors shaped tasks x episodes x steps."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor

from metarl.distributions import Distribution
from metarl.params import names


@dataclass(frozen=True)
class Rollout:
    """Whole episodes of N tasks, E episodes each, at most T steps long; T is at most the horizon.

    Row ``[n, e]`` is one episode from its first step on. ``valid`` is true up to and including the step that ended
    the episode; behind it the sampler leaves zeros.

    Shapes:
        tasks: TensorDict ``[N]``, the parameters of each task.
        observations: ``[N, E, T, *observation]``, before the action.
        actions: ``[N, E, T, *action]``, as the policy drew them (before clipping and scaling to the action space).
        rewards, log_probs: ``[N, E, T]``.
        terminated, truncated, valid: bool ``[N, E, T]``.
        final_observations: ``[N, E, *observation]``, after the episode's last step.
        distribution: parameter tensors ``[N, E, T, A]`` of the policy that acted.
        success: bool ``[N, E, T]``, whether the step met the task's goal; None where the family does not tell.
    """

    tasks: TensorDict
    observations: Tensor
    actions: Tensor
    rewards: Tensor
    terminated: Tensor
    truncated: Tensor
    valid: Tensor
    final_observations: Tensor
    log_probs: Tensor
    distribution: Distribution
    success: Tensor | None = None

    @property
    def num_tasks(self) -> int:
        """Number of tasks N."""
        return self.rewards.shape[0]

    @property
    def env_steps(self) -> int:
        """Number of environment steps that were taken inside episodes."""
        return int(self.valid.sum())

    def episode_returns(self) -> Tensor:
        """Return the undiscounted sum of rewards of each episode, ``[N, E]``."""
        return (self.rewards * self.valid).sum(-1)

    def episode_success(self) -> Tensor | None:
        """Return whether each episode met the task's goal in one of its steps, bool ``[N, E]``, if that is known."""
        return None if self.success is None else (self.success & self.valid).any(-1)

    def map(self, function: Callable[[Tensor], Tensor]) -> "Rollout":
        """Apply ``function`` to every tensor."""
        return Rollout(
            tasks=TensorDict({name: function(self.tasks[name]) for name in names(self.tasks)}, self.tasks.batch_size),
            **self._map_episodes(function),
        )

    def to(self, device: torch.device | str) -> "Rollout":
        """Copy every tensor to ``device``."""
        return self.map(lambda value: value.to(device))

    def first_episodes(self, fraction: float) -> "Rollout":
        """Return the first ``fraction`` of each task's episodes, at least one.

        Episodes of one task are independent and identically distributed, so the first ones are a fair sample.
        """
        count = max(1, round(fraction * self.rewards.shape[1]))
        return Rollout(tasks=self.tasks, **self._map_episodes(lambda value: value[:, :count].contiguous()))

    def _map_episodes(self, function: Callable[[Tensor], Tensor]) -> dict[str, Any]:
        """Apply ``function`` to every tensor but the tasks'."""
        values = {name: value for name, value in vars(self).items() if name != "tasks" and value is not None}
        return {
            name: value.map(function) if isinstance(value, Distribution) else function(value)
            for name, value in values.items()
        }
