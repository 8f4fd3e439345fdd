"""The state of a learner with a memory: between episodes, and while an episode runs."""

from dataclasses import dataclass

import torch
from torch import Tensor

from metarl.agents.in_context.memories.memory import Memory
from metarl.learning.learner import OpenState


@dataclass
class Trial:
    """R trials of each of N tasks, between two steps.

    Shapes:
        memory: memory of N * R trials.
        actions: features of the last actions ``[N, R, A]``.
        rewards: last rewards ``[N, R]``.
        starts: whether the next step starts an episode ``[N, R]``.
    """

    memory: Memory
    actions: Tensor
    rewards: Tensor
    starts: Tensor

    def next_episode(self) -> "Trial":
        """Return a copy in which the next step starts an episode."""
        memory = {name: value.clone() for name, value in self.memory.items()}
        return Trial(memory, self.actions.clone(), self.rewards.clone(), torch.ones_like(self.starts))


@dataclass(frozen=True)
class Unknown:
    """The state for N tasks without any experience."""

    num_tasks: int


@dataclass
class OpenTrial(OpenState[Unknown | Trial]):
    """Trials with a running episode.

    Attributes:
        trial: the trials at the current step, updated in place by acting and observing.
        closed: each trial after its episode's last step; rows whose episode is still running are filled in later.
    """

    trial: Trial
    closed: Trial | None = None

    def close(self, ended: Tensor) -> None:
        """Keep the current state of the trials whose episode has ended, bool ``[N, R]``."""
        if self.closed is None:
            self.closed = self.trial.next_episode()
            return
        for name, value in self.trial.memory.items():
            _overwrite(self.closed.memory[name], value, ended.flatten())
        _overwrite(self.closed.actions, self.trial.actions, ended)
        _overwrite(self.closed.rewards, self.trial.rewards, ended)


def _overwrite(kept: Tensor, new: Tensor, rows: Tensor) -> None:
    """Write the values of some rows into ``kept``, in place and without synchronising with the device."""
    kept.copy_(torch.where(rows.view(*rows.shape, *[1] * (kept.ndim - rows.ndim)), new, kept))
