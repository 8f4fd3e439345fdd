"""A task in memory: what its learner knows, and the episode that is running.

It holds nothing that cannot be rebuilt from the database: a state follows from the episodes before it, read back from
there even when they were lived a moment ago, and a running episode from its steps.
"""

import copy
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from tensordict import TensorDict
from torch import Tensor

from metarl.devices.graphs import tensors_of
from metarl.errors import MetarlError
from metarl.rollouts.rollout import Rollout
from metarl.run.recorded import side_by_side
from metarl.sampling.episodes import join_episodes
from metarl.sampling.joint_acting import Choice, act_again
from metarl.sampling.open_episodes import OpenEpisodes
from metarl.sampling.session import Session
from metarl.seeding import derive_seed
from metarl.serving.messages import Outcome
from metarl.serving.models import Round, Task
from metarl.serving.served import Served
from metarl.serving.stored import choice_of, observations_of, outcome_of


@dataclass
class Pending:
    """A choice that waits for its outcome."""

    observations: Tensor
    choice: Choice


class LiveTask:
    """A task in memory.

    Attributes:
        task: its row.
        episodes: E, of those side by side.
        round: number of the round that is running or comes next.
        step: number of the step in it that is next, or waits for its outcome.
        adaptations: that were due so far.
        since: numbers of the complete rounds since the last adaptation.
        begun: the row of the round that is running.
        running: its episodes, None before its first action.
        alive: bool ``[E]``, which of them have not ended.
        pending: the choice that waits for its outcome.
        seen: what was observed after the last step, ``[1, E, *observation]``.
        outcome: what the last feedback changed.
    """

    def __init__(self, served: Served, task: Task) -> None:
        self.served, self.task, self.episodes = served, task, task.episodes or 1
        parameters = None if task.parameters is None else served.family.make_task(json.loads(task.parameters))
        known = 1 if parameters is None else parameters
        self.session = Session(served.learner, served.family, known, self.episodes, task.seed, served.device)
        self.round, self.step, self.adaptations = 0, 0, 0
        self.since: list[int] = []
        self.begun: Round | None = None
        self.running: OpenEpisodes | None = None
        self.alive = np.ones(self.episodes, np.bool_)
        self.pending: Pending | None = None
        self.seen: Tensor | None = None
        self.outcome: Outcome | None = None

    @property
    def lead(self) -> tuple[int, ...]:
        """The axis of episodes side by side, if the task has one."""
        return () if self.task.episodes is None else (self.task.episodes,)

    @property
    def parameters(self) -> TensorDict:
        """The task's parameters ``[1]``, if they are known."""
        return self.session.tasks

    def start(self, seed: int | None, deterministic: bool) -> Round:
        """Start a round; return its row."""
        drawn = derive_seed(self.task.seed, "episode", self.round) if seed is None else seed
        row = Round(task=self.task.id, number=self.round, seed=drawn, deterministic=deterministic, recorded=False)
        self._open(row)
        return row

    def record(self, rewards: np.ndarray, terminated: np.ndarray, truncated: np.ndarray, after: np.ndarray) -> bool:
        """Record the outcome of the pending choice, arrays ``[E, ...]``; return whether the round is complete."""
        assert self.running is not None
        ended = (terminated | truncated) & self.alive
        self.running.observe(self.served.tensor(rewards), self.served.tensor(ended))
        self.alive = self.alive & ~ended
        self._rewards.append(rewards)
        self._ended.append(ended)
        self.pending, self.seen = None, self.served.tensor(after)
        self.outcome = self._outcome(self.step)
        self.step += 1
        return not self.alive.any()

    def end(self) -> Round:
        """Return the row of the round, which is complete."""
        assert self.begun is not None
        return end_of(self.begun, np.stack(self._rewards, -1), np.stack(self._ended, -1), self.due())

    def complete(self, row: Round) -> bool:
        """End the round, of which this is the row; return whether the learner is to adapt."""
        assert row.returns is not None
        assert row.length is not None
        self.outcome = self._outcome(row.length - 1, json.loads(row.returns))
        self.begun, self.running, self.pending, self.seen = None, None, None, None
        self.since.append(self.round)
        self.round, self.step = self.round + 1, 0
        return row.adapts

    def due(self) -> bool:
        """Return whether the learner adapts once the round is complete."""
        complete = (len(self.since) + 1) * self.episodes
        return not self.served.learner.pools_episodes or complete >= self.task.adapt_after

    def adapt(self, rollouts: Sequence[Rollout]) -> None:
        """Adapt to the rounds since the last adaptation; what the learner cannot learn from leaves it as it is."""
        assert self.outcome is not None
        self.since = []
        self.adaptations += 1
        self.outcome.adaptation_steps = self.adaptations
        adapted = copy.copy(self.session)
        try:
            for rollout in _pooled(rollouts) if self.served.learner.pools_episodes else rollouts:
                adapted.adapt(rollout)
        except MetarlError as error:
            self.outcome.problem = str(error)
            return
        if not all(bool(tensor.isfinite().all()) for tensor in tensors_of(adapted.state)):
            self.outcome.problem = "what was learned is not finite (NaN or infinity); the learner stays as it was"
            return
        self.session, self.outcome.adapted = adapted, True

    def replay(self, row: Round, steps: Sequence[Any]) -> None:
        """Bring a round that is not complete to where it was."""
        self._open(row)
        assert self.running is not None
        for step in steps:
            seen = observations_of(self.served, self.episodes, step)
            actions, distribution = choice_of(self.served, self.episodes, step)
            learner, width = self.served.learner, self.served.width
            in_env = act_again(learner, self.running, seen, actions, distribution, width)
            self.pending = Pending(seen, Choice(actions, distribution, in_env))
            if step.rewards is not None:
                self.record(*outcome_of(self.served, self.episodes, step))

    def _open(self, row: Round) -> None:
        # Not by the session, which would have a round of its own to learn from: the database has them.
        served, known = self.served, self.session
        self.running = OpenEpisodes(
            served.learner,
            known.state,
            served.action_space,
            known.shard,
            self.episodes,
            row.seed,
            row.deterministic,
            served.device,
        )
        self.begun, self.alive, self.step = row, np.ones(self.episodes, np.bool_), 0
        self._rewards: list[np.ndarray] = []
        self._ended: list[np.ndarray] = []

    def _outcome(self, step: int, returns: list[float] | None = None) -> Outcome:
        return Outcome(
            task=self.task.id,
            episode=self.round,
            step=step,
            ended=returns is not None,
            returns=returns,
            adapted=False,
            adaptation_steps=self.adaptations,
            problem=None,
        )


def _pooled(rollouts: Sequence[Rollout]) -> list[Rollout]:
    """Return rounds as one rollout of all their episodes."""
    if len(rollouts) == 1:
        return list(rollouts)
    known = all(rollout.distribution is not None for rollout in rollouts)
    return [join_episodes(rollouts) if known else side_by_side(rollouts)]


def end_of(begun: Round, rewards: np.ndarray, ended: np.ndarray, adapts: bool) -> Round:
    """Return the row of a round that is complete.

    Args:
        begun: its row so far.
        rewards: float32 ``[E, T]``.
        ended: bool ``[E, T]``, where an episode has ended.
        adapts: whether the learner adapts after it.
    """
    inside = np.cumsum(ended, -1) - ended == 0  # no end before this step
    returns = torch.from_numpy(rewards * inside).sum(-1)  # rounded like a rollout's returns
    known = {"returns": json.dumps(returns.tolist()), "steps": int(inside.sum()), "length": rewards.shape[1]}
    return Round(**begun.model_dump() | known | {"adapts": adapts})
