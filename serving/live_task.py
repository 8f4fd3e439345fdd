"""A task in memory: what its learner knows, and the episode that is running.

It holds nothing that cannot be rebuilt from the database: a state follows from the episodes before it, read back from
there also when they were lived a moment ago, and a running episode from its steps.
"""

import copy
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tensordict import TensorDict
from torch import Tensor

from metarl.devices.graphs import tensors_of
from metarl.errors import MetarlError
from metarl.rollouts.rollout import Rollout
from metarl.run.recorded import side_by_side
from metarl.sampling.episodes import RunningEpisodes, join_episodes
from metarl.sampling.joint_acting import Choice, act_again
from metarl.sampling.session import Session
from metarl.seeding import derive_seed
from metarl.serving.messages import Outcome
from metarl.serving.models import Round, Task
from metarl.serving.served import Served
from metarl.serving.stored import choice_of, next_observations_of, observations_of, outcome_of


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
        self.running: RunningEpisodes | None = None
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

    def record(self, rewards: Tensor, terminated: Tensor, truncated: Tensor, after: Tensor) -> Rollout | None:
        """Take in the outcome of the pending choice, tensors ``[1, E, ...]``; return the round if it is complete."""
        assert self.running is not None
        self.running.record(after, rewards, terminated, truncated)
        self.pending, self.seen = None, after
        self.outcome = self._outcome(self.step)
        self.step += 1
        return self.running.rollout(self.parameters) if self.running.over() else None

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
                after = next_observations_of(self.served, self.episodes, step)
                self.record(*outcome_of(self.served, self.episodes, step), after)

    def _open(self, row: Round) -> None:
        # In a copy, so that the session has no round of its own to learn from: the database has them.
        self.begun, self.running = row, copy.copy(self.session).open(row.seed, row.deterministic)
        self.step = 0

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


def end_of(begun: Round, rollout: Rollout, adapts: bool) -> Round:
    """Return the row of a round that is complete."""
    returns = json.dumps(rollout.episode_returns()[0].tolist())
    known = {"returns": returns, "steps": rollout.env_steps, "length": rollout.rewards.shape[2], "adapts": adapts}
    return Round(**begun.model_dump() | known)
