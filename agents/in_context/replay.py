"""A replay buffer of training trials, for off-policy learners."""

from dataclasses import dataclass

import torch
from torch import Tensor

from metarl.errors import InputError


@dataclass(frozen=True)
class Transitions:
    """Single steps of one or more tasks.

    Shapes:
        observations, next_observations: ``[..., D]``, before and after the action.
        actions: ``[..., A]``.
        rewards: ``[...]``.
        terminated: ``[...]``, 1 if the step terminated its episode, else 0 (also if truncated).
        valid: bool ``[...]``, false where there is no step.
    """

    observations: Tensor
    actions: Tensor
    rewards: Tensor
    next_observations: Tensor
    terminated: Tensor
    valid: Tensor

    def rows(self) -> Tensor:
        """Return all fields except ``valid`` as rows ``[..., 2 D + A + 2]``."""
        numbers = (self.rewards.unsqueeze(-1), self.terminated.unsqueeze(-1))
        return torch.cat([self.observations, self.next_observations, self.actions, *numbers], -1)

    @classmethod
    def of_rows(cls, rows: Tensor, observation_size: int, valid: Tensor) -> "Transitions":
        """Return the transitions in these rows."""
        sizes = [observation_size, observation_size, rows.shape[-1] - 2 * observation_size - 2, 1, 1]
        observations, following, actions, rewards, terminated = torch.split(rows, sizes, -1)
        return cls(observations, actions, rewards.squeeze(-1), following, terminated.squeeze(-1), valid)


class TrialReplay:
    """A replay buffer of the latest training tasks with their trials, from which contexts are drawn separately.

    It keeps the R trials of one iteration for each task. All of their steps are replayed. Contexts come from a single
    trial and leave out its last episode: a context is what the learner knew at the start of one of the trial's later
    episodes.

    Args:
        transitions: capacity, divided among tasks; new tasks replace the oldest ones.
        trial_steps: maximum number of steps in a trial.
        observation_size: size D of stored observations.
        device: device of the buffer.

    Attributes:
        added: total number of tasks added so far.
    """

    def __init__(self, transitions: int, trial_steps: int, observation_size: int, device: torch.device) -> None:
        self._transitions, self._trial_steps, self._observation_size = transitions, trial_steps, observation_size
        self._device = device
        self.added = 0
        # For every task: rows [trials, steps, 2 D + A + 2], and the end of each episode in them [trials, episodes].
        self._rows = torch.empty(0, device=device)
        self._ends = torch.empty(0, dtype=torch.int64, device=device)
        # Data overwritten by the last ``add``: slots, and their previous rows and ends.
        self._overwritten: tuple[Tensor, Tensor, Tensor] | None = None

    @property
    def kept(self) -> int:
        """Number of tasks in the buffer; see ``metarl.replay.Replay``."""
        return self.num_tasks

    @property
    def num_tasks(self) -> int:
        """Number of tasks in the buffer."""
        return min(self.added, len(self._rows))

    @property
    def num_transitions(self) -> Tensor:
        """Number of transitions in the buffer, ``[]``."""
        return self._ends[: self.num_tasks, :, -1].sum()

    def add(self, steps: Transitions, ends: Tensor) -> None:
        """Add N tasks.

        Args:
            steps: steps of trials without gaps ``[N, R, L]``.
            ends: number of steps up to each episode's end ``[N, R, E]``.

        Raises:
            InputError: if N tasks do not fit, or R differs from before.
        """
        rows = steps.rows()
        if not self.added:
            self._make_room(rows, ends)
        if rows.shape[1] != self._rows.shape[1]:
            raise InputError(f"a replay of {self._rows.shape[1]} trials of each task cannot take {rows.shape[1]}")
        if len(rows) > len(self._rows):
            raise InputError(
                f"a replay of {self._transitions} transitions has room for {len(self._rows)} tasks of {rows.shape[1]} "
                f"trials, not for the {len(rows)} of an iteration; take a larger replay or fewer episodes of each task"
            )
        slots = self._slots(self.added, self.added + len(rows))
        self._overwritten = slots, self._rows[slots], self._ends[slots]
        self._rows[slots, :, : rows.shape[2]] = rows
        self._ends[slots] = ends
        self.added += len(rows)

    def undo(self) -> None:
        """Undo the last ``add``, once, and restore what it overwrote."""
        assert self._overwritten is not None
        slots, rows, ends = self._overwritten
        self._rows[slots], self._ends[slots] = rows, ends
        self.added -= len(slots)
        self._overwritten = None

    def _slots(self, start: int, stop: int) -> Tensor:
        """Return the slots of tasks ``start`` to ``stop - 1``, numbered in the order in which they were added."""
        return torch.arange(start, stop, device=self._device) % len(self._rows)

    def _make_room(self, rows: Tensor, ends: Tensor) -> None:
        tasks = self._transitions // (rows.shape[1] * self._trial_steps)
        self._rows = rows.new_zeros(tasks, rows.shape[1], self._trial_steps, rows.shape[-1])
        self._ends = ends.new_zeros(tasks, *ends.shape[1:])

    def draw_tasks(self, count: int, stream: torch.Generator) -> Tensor:
        """Draw the slots of ``count`` tasks ``[M]``, or of all if there are fewer."""
        return torch.randperm(self.num_tasks, generator=stream, device=self._device)[:count]

    def draw_replay(self, tasks: Tensor, count: int, stream: torch.Generator) -> Transitions:
        """Draw steps ``[M, count]`` from all trials of tasks ``[M]``, with replacement."""
        shape = (len(tasks), count)
        trials = torch.randint(self._ends.shape[1], shape, generator=stream, device=self._device)
        lengths = self._ends[tasks.unsqueeze(-1), trials, -1]
        steps = (torch.rand(shape, generator=stream, device=self._device) * lengths).long()
        return self._steps(tasks.unsqueeze(-1), trials, steps, torch.ones_like(steps, dtype=torch.bool))

    def draw_context(self, tasks: Tensor, count: int, stream: torch.Generator) -> Transitions:
        """Draw a context ``[M, C]`` for each of the tasks ``[M]``: up to ``count`` steps of one trial's first episodes.

        The trial and the number of episodes (never all of them) are random. Steps are drawn without replacement.
        """
        episodes = self._ends.shape[-1] - 1
        trials, known = (
            torch.randint(high, tasks.shape, generator=stream, device=self._device)
            for high in (self._ends.shape[1], episodes)
        )
        lengths = self._ends[tasks, trials, known].unsqueeze(-1)
        keys = torch.rand(len(tasks), self._trial_steps, generator=stream, device=self._device)
        keys[torch.arange(self._trial_steps, device=self._device) >= lengths] = 2.0
        steps = keys.topk(min(count, self._trial_steps), largest=False).indices
        return self._steps(tasks.unsqueeze(-1), trials.unsqueeze(-1), steps, steps < lengths)

    def _steps(self, tasks: Tensor, trials: Tensor, steps: Tensor, valid: Tensor) -> Transitions:
        flat = (tasks * self._rows.shape[1] + trials) * self._trial_steps + steps
        rows = self._rows.view(-1, self._rows.shape[-1])[flat]
        return Transitions.of_rows(rows, self._observation_size, valid)

    def read(self, start: int, stop: int) -> dict[str, Tensor]:
        """Return tasks by their numbers; see ``metarl.replay.Replay``."""
        slots = self._slots(start, stop)
        return {"rows": self._rows[slots], "ends": self._ends[slots]}

    def restore(self, added: int, pieces: list[dict[str, Tensor]]) -> None:
        """Restore what ``read`` returned; see ``metarl.replay.Replay``."""
        self._rows, self._ends, self.added = self._rows[:0], self._ends[:0], added
        self._overwritten = None
        if not pieces:
            return
        rows, ends = (torch.cat([piece[name] for piece in pieces]).to(self._device) for name in ("rows", "ends"))
        self._make_room(rows, ends)
        rows, ends = rows[-len(self._rows) :], ends[-len(self._ends) :]
        slots = self._slots(added - len(rows), added)
        self._rows[slots], self._ends[slots] = rows, ends
