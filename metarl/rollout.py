"""What one collection of episodes leaves behind: tensors shaped tasks x episodes x steps."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from tensordict import TensorDict
from torch import Tensor

from metarl.distributions import Distribution


@dataclass(frozen=True)
class Rollout:
    """Whole episodes of N tasks, E episodes each, at most T steps long.

    Row ``[n, e]`` is one episode from its first step on. ``valid`` is true up to and including the step that ended
    the episode; what stands behind that step has no meaning.

    Shapes:
        tasks: TensorDict ``[N]``, the parameters of each task.
        observations: ``[N, E, T, *observation]``, before the action.
        actions: ``[N, E, T, *action]``, as the policy drew them (before clipping and scaling to the action space).
        rewards, log_probs: ``[N, E, T]``.
        terminated, truncated, valid: bool ``[N, E, T]``.
        final_observations: ``[N, E, *observation]``, after the episode's last step.
        distribution: parameter tensors ``[N, E, T, A]`` of the policy that acted.
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

    def map(self, function: Callable[[Tensor], Tensor]) -> "Rollout":
        """Apply ``function`` to every tensor."""
        changed = {
            name: value.apply(function) if isinstance(value, TensorDict) else value.map(function)
            if isinstance(value, Distribution) else function(value)
            for name, value in vars(self).items()
        }
        return Rollout(**changed)

    def to(self, device: torch.device | str) -> "Rollout":
        """Copy every tensor to ``device``."""
        return self.map(lambda value: value.to(device))

    def first_episodes(self, fraction: float) -> "Rollout":
        """Return the first ``fraction`` of each task's episodes, at least one.

        Episodes of one task are independent and identically distributed, so the first ones are a fair sample.
        """
        count = max(1, round(fraction * self.rewards.shape[1]))
        return self if count == self.rewards.shape[1] else Rollout(
            **{
                name: value if isinstance(value, TensorDict) else value.map(lambda x: x[:, :count].contiguous())
                if isinstance(value, Distribution) else value[:, :count].contiguous()
                for name, value in vars(self).items()
            }
        )
