"""A replay buffer of training trials, for off-policy learners."""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from metarl.agents.in_context.step_inputs import StepInputs
from metarl.devices.processes import ONE_PROCESS, Processes
from metarl.devices.transfer import send
from metarl.errors import InputError
from metarl.learning.replay import gathered, kept_by
from metarl.numerics.noise import BatchGenerator, draw_rows
from metarl.rollouts.trials import Trials


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

    @classmethod
    def of_trials(cls, inputs: StepInputs, trials: Trials, num_tasks: int) -> "Transitions":
        """Return the steps ``[N, R, L]`` of N * R trials, with observations as stored in a replay buffer."""
        flat = cls(
            inputs.stored(trials.observations),
            inputs.actions(trials.actions),
            trials.rewards,
            inputs.stored(trials.next_observations),
            trials.terminated.to(trials.rewards.dtype),
            trials.valid,
        )
        return cls(**{name: value.unflatten(0, (num_tasks, -1)) for name, value in vars(flat).items()})

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

    With several processes each keeps its own tasks. All use the same task numbers, and task g is at position g
    modulo the capacity, so that drawing positions gives the same tasks on any number of processes.

    Args:
        transitions: capacity, divided among tasks; new tasks replace the oldest ones.
        trial_steps: maximum number of steps in a trial.
        observation_size: size D of stored observations.
        device: device of the buffer.

    Attributes:
        added: number of tasks that all processes have ever added.
    """

    def __init__(self, transitions: int, trial_steps: int, observation_size: int, device: torch.device) -> None:
        self._transitions, self._trial_steps, self._observation_size = transitions, trial_steps, observation_size
        self._device = device
        self.added = self._room = self._together = 0
        # Of every task here: rows [trials, steps, 2 D + A + 2], and where in them each episode ends [trials, episodes].
        self._rows = torch.empty(0, device=device)
        self._ends = torch.empty(0, dtype=torch.int64, device=device)
        # The number of the task in each slot, -1 in free ones, on the CPU; and the slot of each place, -1 elsewhere.
        self._numbers = torch.empty(0, dtype=torch.int64)
        self._slots = torch.empty(0, dtype=torch.int64, device=device)
        # What the last tasks overwrote: how many there were, their slots, and the rows, ends and numbers there.
        self._overwritten: tuple[int, Tensor, Tensor, Tensor, Tensor] | None = None
        self._complete = True

    @property
    def kept(self) -> int:
        """Number of tasks in the buffer; see ``metarl.learning.replay.Replay``."""
        return self.num_tasks

    @property
    def num_tasks(self) -> int:
        """Number of tasks that are remembered, on all processes."""
        return min(self.added, self._room)

    @property
    def num_transitions(self) -> Tensor:
        """Number of transitions in this process's part of the buffer, ``[]``."""
        return self._ends[send(self._occupied(), self._device), :, -1].sum()

    def _occupied(self) -> Tensor:
        """Return the slots of the tasks that are remembered here, on the CPU."""
        return (self._numbers >= max(0, self.added - self._room)).nonzero().squeeze(1)

    def add(self, steps: Transitions, ends: Tensor, processes: Processes = ONE_PROCESS) -> None:
        """Remember N more tasks.

        Args:
            steps: of trials without gaps ``[N, R, L]``.
            ends: number of steps up to each episode's end ``[N, R, E]``.
            processes: each of which adds tasks of its own.

        Raises:
            InputError: when there is no room for the tasks, or R is not what it was before.
        """
        rows = steps.rows()
        own, total = processes.rows(len(rows))
        if not self.added:
            self._make_room(rows, ends)
        if rows.shape[1] != self._rows.shape[1]:
            raise InputError(
                f"a replay buffer with {self._rows.shape[1]} trials of each task cannot store {rows.shape[1]}"
            )
        if total > self._room:
            raise InputError(
                f"a replay buffer of {self._transitions} transitions has room for {self._room} tasks with "
                f"{rows.shape[1]} trials, but an iteration has {total}; use a larger --replay-size or a smaller "
                "--tasks-per-batch or --episodes-per-task"
            )
        numbers = self.added + torch.arange(own.start, own.stop)
        self.added += total
        self._together = total
        free = (self._numbers < self.added - self._room) | (self._numbers < 0)
        # What this process keeps of a full buffer: its tasks of all iterations that fit whole, and of part of another.
        whole = self._room // total * len(rows) + min(len(rows), self._room % total)
        slots = self._oldest(free, len(rows), whole)
        here = send(slots, self._device)
        self._overwritten = total, slots, self._rows[here], self._ends[here], self._numbers[slots]
        self._rows[here, :, : rows.shape[2]] = rows
        self._ends[here] = ends
        self._numbers[slots] = numbers
        self._find_slots()

    def undo(self) -> None:
        """Undo the last ``add``, once, and restore what it overwrote."""
        assert self._overwritten is not None
        total, slots, rows, ends, numbers = self._overwritten
        here = send(slots, self._device)
        self._rows[here], self._ends[here], self._numbers[slots] = rows, ends, numbers
        self.added -= total
        self._overwritten = None
        self._find_slots()

    def _oldest(self, free: Tensor, count: int, whole: int) -> Tensor:
        """Return ``count`` of the slots that are ``free``, the ones of the oldest tasks.

        If there are too few, the number of slots is doubled, but not to more than the ``whole`` buffer, so that memory
        follows what is stored, and each task is copied only a few times.
        """
        if (missing := count - int(free.sum())) > 0:
            self._allocate(max(len(free) + missing, min(2 * len(free), whole)))
        free = torch.cat([free, free.new_ones(len(self._numbers) - len(free))])
        slots = free.nonzero().squeeze(1)
        return slots[self._numbers[slots].argsort(stable=True)][:count]

    def _make_room(self, rows: Tensor, ends: Tensor) -> None:
        self._room = self._transitions // (rows.shape[1] * self._trial_steps)
        self._rows = rows.new_zeros(0, rows.shape[1], self._trial_steps, rows.shape[-1])
        self._ends = ends.new_zeros(0, *ends.shape[1:])
        self._numbers = torch.empty(0, dtype=torch.int64)

    def _allocate(self, slots: int) -> None:
        """Add free slots until there are ``slots`` in all, if there are fewer."""
        more = slots - len(self._numbers)
        if more > 0:
            self._rows, self._ends = (
                torch.cat([value, value.new_zeros(more, *value.shape[1:])]) for value in (self._rows, self._ends)
            )
            self._numbers = torch.cat([self._numbers, self._numbers.new_full((more,), -1)])

    def _find_slots(self) -> None:
        occupied = self._occupied()
        slots = self._numbers.new_full((self._room,), -1)
        slots[self._numbers[occupied] % self._room] = occupied
        self._slots = send(slots, self._device)
        self._complete = len(occupied) == self.num_tasks

    def local_slots(self, tasks: Tensor, stream: torch.Generator) -> tuple[Tensor, float, torch.Generator]:
        """Return the slots of those tasks that are kept here, their share of all, and their part of a step's noise.

        A process that keeps none of them gets one slot, to take part in exchanges with; its share is 0.

        Args:
            tasks: positions ``[M]``, as ``draw_tasks`` returns them.
            stream: of the step's noise for all M tasks.
        """
        slots = self._slots[tasks]
        if self._complete:  # without asking the device which of them are here
            return slots, 1.0, stream
        rows = (slots >= 0).nonzero().squeeze(1)
        chosen = rows if len(rows) else rows.new_zeros(1)
        return slots[chosen].clamp(min=0), len(rows) / len(tasks), BatchGenerator(stream, chosen, len(tasks))

    def draw_tasks(self, count: int, stream: torch.Generator, together: bool = False) -> Tensor:
        """Return the positions of ``count`` tasks ``[M]``, or of all if there are fewer.

        Args:
            count: number of tasks.
            stream: generator of what is drawn.
            together: whether to draw them from one random iteration, with as many tasks as the last one.
        """
        if not together:
            return torch.randperm(self.num_tasks, generator=stream, device=self._device)[:count]
        age = torch.randint(self.num_tasks // self._together, (), generator=stream, device=self._device)
        order = torch.randperm(self._together, generator=stream, device=self._device)[:count]
        return (self.added - (age + 1) * self._together + order) % self._room

    def draw_replay(self, tasks: Tensor, count: int, stream: torch.Generator) -> Transitions:
        """Draw steps ``[M, count]`` of all trials of the tasks in slots ``[M]``, with replacement."""
        shape = (len(tasks), count)
        trials = draw_rows(partial(torch.randint, self._ends.shape[1]), shape, stream, device=self._device)
        lengths = self._ends[tasks.unsqueeze(-1), trials, -1]
        steps = (draw_rows(torch.rand, shape, stream, device=self._device) * lengths).long()
        return self._steps(tasks.unsqueeze(-1), trials, steps, torch.ones_like(steps, dtype=torch.bool))

    def draw_contexts(
        self, tasks: Tensor, contexts: int, count: int, stream: torch.Generator, uninformed: bool = False
    ) -> Transitions:
        """Draw contexts ``[M, contexts, C]`` of tasks in slots ``[M]``: up to ``count`` steps of first episodes each.

        The number of episodes (never all of them) is random, and the same in all contexts of a task. If there is more
        than one trial, the last context is of a trial of its own, and the others are of different trials as far as
        possible; contexts of one trial have no step in common. Steps are drawn without replacement.

        Args:
            tasks: slots of M tasks.
            contexts: of each task.
            count: maximum number of steps in one.
            stream: generator of what is drawn.
            uninformed: whether to draw from first episodes only, which were acted without knowledge of the task.
        """
        number = self._ends.shape[1]
        trials, known = (
            draw_rows(partial(torch.randint, high), tasks.shape, stream, device=self._device)
            for high in (number, 1 if uninformed else self._ends.shape[-1] - 1)
        )
        keys = draw_rows(torch.rand, (len(tasks), self._trial_steps), stream, device=self._device)
        others = max(1, number - 1)
        shared = max(1, -(-(contexts - 1) // others))  # contexts of one trial, of whose steps each takes its share
        most = min(count * shared, self._trial_steps) // shared * shared
        after = torch.arange(self._trial_steps, device=self._device)
        drawn = []
        for context in range(contexts):
            last = context == contexts - 1
            trial = trials if last else (trials + 1 + context % others) % number
            lengths = self._ends[tasks, trial, known].unsqueeze(-1)
            order = keys.masked_fill(after >= lengths, 2.0).topk(most, largest=False).indices
            steps = order[:, 0 if last else context // others :: shared]
            drawn.append((trial, steps, steps < lengths))
        trial, steps, valid = (torch.stack(parts, 1) for parts in zip(*drawn, strict=True))
        return self._steps(tasks[:, None, None], trial.unsqueeze(-1), steps, valid)

    def _steps(self, tasks: Tensor, trials: Tensor, steps: Tensor, valid: Tensor) -> Transitions:
        flat = (tasks * self._rows.shape[1] + trials) * self._trial_steps + steps
        rows = self._rows.view(-1, self._rows.shape[-1])[flat]
        return Transitions.of_rows(rows, self._observation_size, valid)

    def read(self, start: int, stop: int, processes: Processes = ONE_PROCESS) -> dict[str, Tensor]:
        """Return tasks by their numbers; see ``metarl.learning.replay.Replay``."""
        slots = ((self._numbers >= start) & (self._numbers < stop)).nonzero().squeeze(1)
        here = send(slots, self._device)
        return gathered(self._numbers[slots], {"rows": self._rows[here], "ends": self._ends[here]}, processes)

    def restore(self, added: int, pieces: list[dict[str, Tensor]], processes: Processes = ONE_PROCESS) -> None:
        """Restore what ``read`` returned; see ``metarl.learning.replay.Replay``."""
        self.added, self._room, self._overwritten = added, 0, None
        if not pieces:
            return
        rows, ends = (torch.cat([piece[name] for piece in pieces]) for name in ("rows", "ends"))
        self._make_room(rows.to(self._device), ends.to(self._device))
        numbers = added - len(rows) + torch.arange(len(rows))
        own = (kept_by(processes, numbers) & (numbers >= added - self._room)).nonzero().squeeze(1)
        own = own[(numbers[own] % self._room).argsort()]
        slots = torch.arange(len(own))
        self._allocate(len(slots))
        self._rows[slots], self._ends[slots] = rows[own].to(self._device), ends[own].to(self._device)
        self._numbers[slots] = numbers[own]
        self._find_slots()
