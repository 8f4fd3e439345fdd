"""A buffer of the newest training trials, for fitting a model.

With several processes each keeps the trials of its own tasks. A trial's age, the number of newer trials on all
processes, is its index in the joint buffer; drawing ages gives the same trials on any number of processes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from metarl.agents.in_context.selected_trials import selected
from metarl.processes import ONE_PROCESS, BatchNoise, Processes
from metarl.transfer import send
from metarl.trials import Trials


@dataclass(frozen=True)
class AgedTrials:
    """This process's trials, oldest first, and the number of newer trials on all processes for each.

    Shapes:
        ages: ``[B]``, on the CPU: they follow from numbers of trials.
    """

    trials: Trials
    ages: Tensor
    room: int

    def draw(
        self, count: int, streams: Sequence[torch.Generator], processes: Processes
    ) -> Iterator[tuple[Trials, BatchNoise]]:
        """Draw trials uniformly over all processes for each of several steps.

        On a GPU it synchronises once, for the indices of all steps.

        Yields:
            This process's trials, and the noise of a step on them.
        """
        device = self.trials.rewards.device
        available = sum(processes.counts(int((self.ages < self.room).sum())))
        numbers = [torch.randint(available, (count,), generator=stream, device=device) for stream in streams]
        for stream, own in zip(streams, torch.stack(numbers).cpu(), strict=True):
            drawn, rows = (available - 1 - own.unsqueeze(1) == self.ages).nonzero(as_tuple=True)
            # A process without a trial still takes part, with zero weight.
            noise = BatchNoise(stream, send(drawn if len(drawn) else drawn.new_zeros(1), device), count)
            yield selected(self.trials, send(rows, device)), noise


class PastTrials:
    """The newest trials, up to a total number over all processes, padded to the longest one so far.

    Args:
        room: number of trials to keep.
        device: device of the trials.

    Attributes:
        newest: the kept trials; None before the first.
        added: total number of trials added by this process.
    """

    def __init__(self, room: int, device: torch.device) -> None:
        self._room, self._device = room, device
        self.newest: AgedTrials | None = None
        self.added = 0

    @property
    def kept(self) -> int:
        """Number of trials that are kept."""
        return 0 if self.newest is None else len(self.newest.ages)

    def joined(self, trials: Trials, processes: Processes = ONE_PROCESS) -> AgedTrials:
        """Return the trials to keep after adding this process's ``trials`` and those of the others."""
        own, total = processes.rows(len(trials.rewards))
        ages = total - 1 - torch.arange(own.start, own.stop)
        if self.newest is not None:
            ages = torch.cat([self.newest.ages + total, ages])
        # At least one, so that a process always has a trial for collective operations.
        count = max(1, int((ages < self._room).sum()))
        past = None if self.newest is None else self.newest.trials
        return AgedTrials(join_newest(past, trials, count), ages[-count:], self._room)

    def keep(self, newest: AgedTrials, added: int) -> None:
        """Replace the kept trials by those that ``joined`` returned for ``added`` new trials."""
        self.newest = newest
        self.added += added

    def read(self, start: int, stop: int) -> dict[str, Tensor]:
        """Return trials by their numbers; see ``metarl.replay.Replay``."""
        assert self.newest is not None
        oldest = self.added - self.kept
        return {name: value[start - oldest : stop - oldest] for name, value in vars(self.newest.trials).items()}

    def restore(self, added: int, pieces: list[dict[str, Tensor]]) -> None:
        """Restore what ``read`` returned; see ``metarl.replay.Replay``."""
        self.newest = None
        for piece in pieces:
            trials = Trials(**{name: value.to(self._device) for name, value in piece.items()})
            self.keep(self.joined(trials), 0)
        self.added = added


def join_newest(past: Trials | None, trials: Trials, count: int) -> Trials:
    """Return the last ``count`` of past and new trials, padded with zeros to the length of the longest of all."""
    pieces = [trials] if past is None else [past, trials]
    length = max(each.valid.shape[1] for each in pieces)
    padded = [each.padded(length) for each in pieces]
    # Copies: a slice of a tensor would keep all of it in memory.
    return Trials(
        **{name: torch.cat([getattr(each, name) for each in padded])[-count:].clone() for name in vars(trials)}
    )
