"""Trials as sequences: consecutive episodes of one task, for learners with a memory."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Self

import torch
from torch import Tensor

from metarl.rollouts.rollout import Rollout


@dataclass(frozen=True)
class Trials:
    """B trials, each a sequence of up to L steps without gaps, sorted by task.

    Shapes:
        observations, next_observations: ``[B, L, *observation]``, before and after the action; at an episode's end the
            next observation is the final one of that episode.
        actions: ``[B, L, *action]``, as sampled from the policy.
        rewards: ``[B, L]``.
        log_probs: ``[B, L]``, at sampling time; NaN if the policy is unknown.
        starts: bool ``[B, L]``, whether an episode starts with the step.
        terminated: bool ``[B, L]``.
        valid: bool ``[B, L]``, true up to and including the trial's last step. All later entries are zeros, except in
            ``log_probs``.
    """

    observations: Tensor
    next_observations: Tensor
    actions: Tensor
    rewards: Tensor
    log_probs: Tensor
    starts: Tensor
    terminated: Tensor
    valid: Tensor

    @classmethod
    def of(cls, rollouts: Sequence[Rollout]) -> Self:
        """Join rollouts of the same tasks: episode ``[n, e]`` of each is followed by episode ``[n, e]`` of the next.

        On a GPU it waits once, for the length of the longest trial.

        Raises:
            ValueError: if their numbers of tasks or episodes differ.
        """
        if len({rollout.rewards.shape[:2] for rollout in rollouts}) != 1:
            raise ValueError("the rollouts of trials must have the same numbers of tasks and episodes")
        pieces = [_steps(rollout) for rollout in rollouts]
        joined = {
            field.name: torch.cat([piece[field.name] for piece in pieces], 2).flatten(0, 1) for field in fields(cls)
        }
        shortest, longest = torch.stack(joined["valid"].sum(-1).aminmax()).tolist()
        if shortest < joined["valid"].shape[1]:
            order = (~joined["valid"]).byte().argsort(dim=-1, stable=True)[:, :longest]
            rows = torch.arange(len(order), device=order.device)[:, None]
            joined = {name: value[rows, order] for name, value in joined.items()}
        return cls(**joined)

    @classmethod
    def of_episode(cls, rollout: Rollout) -> Self:
        """Return one episode of each trial, which has no gaps: as ``of``, but with as many steps as the rollout."""
        steps = _steps(rollout)
        return cls(**{field.name: steps[field.name].flatten(0, 1) for field in fields(cls)})

    @property
    def lengths(self) -> Tensor:
        """Number of steps of each trial, ``[B]``."""
        return self.valid.sum(-1)

    def discounts(self, discount: float, episode_discount: float) -> float | Tensor:
        """Return the discount of what follows each step: one for all steps, or ``[B, L]``.

        Args:
            discount: per step of the trial.
            episode_discount: multiplies it where the next step starts an episode; with 1 there is one for all steps.
        """
        if episode_discount == 1:
            return discount
        starting = torch.cat([self.starts[:, 1:], torch.zeros_like(self.starts[:, :1])], 1)
        return discount * torch.where(starting, episode_discount, 1.0).to(self.rewards.dtype)

    def padded(self, steps: int) -> Self:
        """Return the trials ``[B, steps]``, with zeros after their ends; ``steps`` is at least L."""
        added = steps - self.valid.shape[1]
        if not added:
            return self
        return type(self)(
            **{
                name: torch.cat([value, value.new_zeros(len(value), added, *value.shape[2:])], 1)
                for name, value in vars(self).items()
            }
        )

    def __getitem__(self, rows: Tensor) -> Self:
        """Return the trials with these indices."""
        return type(self)(**{name: value[rows] for name, value in vars(self).items()})


@dataclass(frozen=True)
class LabelledTrials(Trials):
    """Trials whose best actions ``[B, L, *action]`` are known."""

    best_actions: Tensor


def _steps(rollout: Rollout) -> dict[str, Tensor]:
    starts = torch.zeros_like(rollout.valid)
    starts[:, :, 0] = True
    following = torch.cat([rollout.observations[:, :, 1:], torch.zeros_like(rollout.observations[:, :, :1])], 2)
    tasks, episodes = (torch.arange(size, device=following.device) for size in rollout.valid.shape[:2])
    following[tasks[:, None], episodes[None], rollout.valid.sum(-1) - 1] = rollout.final_observations
    log_probs = torch.full_like(rollout.rewards, torch.nan) if rollout.log_probs is None else rollout.log_probs
    names = ("observations", "actions", "rewards", "terminated", "valid")
    own = {name: getattr(rollout, name) for name in names}
    if rollout.best_actions is not None:
        own["best_actions"] = rollout.best_actions
    return {**own, "log_probs": log_probs, "next_observations": following, "starts": starts}
