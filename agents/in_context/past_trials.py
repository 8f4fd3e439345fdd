"""A buffer of the newest training trials, for fitting a model.

With several processes each keeps the trials of its own tasks. A trial's age, the number of newer trials on all
processes, is its index in the joint buffer; drawing ages gives the same trials on any number of processes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from metarl.agents.in_context.selected_trials import selected
from metarl.devices.processes import ONE_PROCESS, Processes
from metarl.devices.transfer import send
from metarl.learning.replay import gathered, kept_by
from metarl.numerics.noise import BatchGenerator
from metarl.rollouts.trials import Trials


@dataclass(frozen=True)
class AgedTrials:
    """This process's trials, oldest first, and the number of newer trials on all processes for each.

    Shapes:
        ages: ``[B]``, on the CPU: they follow from numbers of trials.

    Attributes:
        room: number of trials that all processes keep.
        added: number of trials added by all processes so far, including these.
    """

    trials: Trials
    ages: Tensor
    room: int
    added: int

    def draw(self, count: int, streams: Sequence[torch.Generator]) -> Iterator[tuple[Trials, torch.Generator]]:
        """Draw trials uniformly over all processes for each of several steps.

        On a GPU it synchronises once, for the indices of all steps.

        Yields:
            This process's trials, and the noise of a step on them.
        """
        device = self.trials.rewards.device
        available = min(self.added, self.room)
        numbers = [torch.randint(available, (count,), generator=stream, device=device) for stream in streams]
        for stream, own in zip(streams, torch.stack(numbers).cpu(), strict=True):
            drawn, rows = (available - 1 - own.unsqueeze(1) == self.ages).nonzero(as_tuple=True)
            # A process without a trial still takes part, with zero weight.
            noise = BatchGenerator(stream, send(drawn if len(drawn) else drawn.new_zeros(1), device), count)
            yield selected(self.trials, send(rows, device)), noise


class PastTrials:
    """The newest trials, up to a total number over all processes, padded to the longest one so far.

    Args:
        room: number of trials to keep.
        device: device of the trials.

    Attributes:
        newest: those that this process keeps; None before the first.
        added: number of trials that all processes ever added.
    """

    def __init__(self, room: int, device: torch.device) -> None:
        self._room, self._device = room, device
        self.newest: AgedTrials | None = None
        self.added = 0

    @property
    def kept(self) -> int:
        """Number of trials that are kept on all processes."""
        return min(self.added, self._room)

    def joined(self, trials: Trials, processes: Processes = ONE_PROCESS) -> AgedTrials:
        """Return the trials to keep after adding this process's ``trials`` and those of the others."""
        own, total = processes.rows(len(trials.rewards))
        ages = total - 1 - torch.arange(own.start, own.stop)
        past = None
        if self.newest is not None:
            past, ages = self.newest.trials, torch.cat([self.newest.ages + total, ages])
        # At least one, so that there is always a trial to take part in an exchange with.
        count = max(1, int((ages < self._room).sum()))
        return AgedTrials(join_newest(past, trials, count), ages[-count:], self._room, self.added + total)

    def keep(self, newest: AgedTrials) -> None:
        """Replace the buffer's content by what ``joined`` returned."""
        self.newest, self.added = newest, newest.added

    def read(self, start: int, stop: int, processes: Processes = ONE_PROCESS) -> dict[str, Tensor]:
        """Return trials by their numbers; see ``metarl.learning.replay.Replay``."""
        assert self.newest is not None
        numbers = self.added - 1 - self.newest.ages
        asked = (numbers >= start) & (numbers < stop)
        length = max(processes.counts(self.newest.trials.valid.shape[1]))
        trials = self.newest.trials[asked].padded(length)
        return gathered(numbers[asked], vars(trials), processes)

    def restore(self, added: int, pieces: list[dict[str, Tensor]], processes: Processes = ONE_PROCESS) -> None:
        """Restore what ``read`` returned; see ``metarl.learning.replay.Replay``."""
        self.newest, self.added = None, added
        first = added - sum(len(piece["rewards"]) for piece in pieces)
        length = max((piece["valid"].shape[1] for piece in pieces), default=0)  # the same on every process
        for piece in pieces:
            numbers = torch.arange(first, first + len(piece["rewards"]))
            first += len(numbers)
            own = kept_by(processes, numbers) & (numbers >= added - self._room)
            if not own.any():
                continue
            trials = Trials(**{name: value[own].to(self._device) for name, value in piece.items()}).padded(length)
            ages = added - 1 - numbers[own]
            past = None
            if self.newest is not None:
                past, ages = self.newest.trials, torch.cat([self.newest.ages, ages])
            self.newest = AgedTrials(join_newest(past, trials, len(ages)), ages, self._room, added)


def join_newest(past: Trials | None, trials: Trials, count: int) -> Trials:
    """Return the last ``count`` of past and new trials, padded with zeros to the length of the longest of all."""
    pieces = [trials] if past is None else [past, trials]
    length = max(each.valid.shape[1] for each in pieces)
    padded = [each.padded(length) for each in pieces]
    # Copies: a slice of a tensor would keep all of it in memory.
    return Trials(
        **{name: torch.cat([getattr(each, name) for each in padded])[-count:].clone() for name in vars(trials)}
    )
