"""The newest trials of training, for a model that is fitted to them again and again."""

import torch
from torch import Tensor

from metarl.trials import Trials


class PastTrials:
    """The newest trials, up to a number of them, padded to the longest one met so far.

    Args:
        room: number of trials that are kept.
        device: of the trials.

    Attributes:
        trials: those that are kept; None before the first.
        added: number of trials that were ever added.
    """

    def __init__(self, room: int, device: torch.device) -> None:
        self._room, self._device = room, device
        self.trials: Trials | None = None
        self.added = 0

    @property
    def kept(self) -> int:
        """Number of trials that are kept."""
        return 0 if self.trials is None else len(self.trials.rewards)

    def joined(self, trials: Trials) -> Trials:
        """Return what would be kept if ``trials`` were added."""
        return newest(self.trials, trials, self._room)

    def add(self, trials: Trials) -> None:
        """Add trials, and drop the oldest ones that there is no room for."""
        self.trials = self.joined(trials)
        self.added += len(trials.rewards)

    def read(self, start: int, stop: int) -> dict[str, Tensor]:
        """Return trials by their numbers; see ``metarl.replay.Replay``."""
        assert self.trials is not None
        oldest = self.added - self.kept
        return {name: value[start - oldest : stop - oldest] for name, value in vars(self.trials).items()}

    def restore(self, added: int, pieces: list[dict[str, Tensor]]) -> None:
        """Take over what ``read`` returned; see ``metarl.replay.Replay``."""
        self.trials = None
        for piece in pieces:
            self.add(Trials(**{name: value.to(self._device) for name, value in piece.items()}))
        self.added = added


def newest(past: Trials | None, trials: Trials, count: int) -> Trials:
    """Return the last ``count`` of past and new trials, padded with zeros to the longest of all."""
    pieces = [trials] if past is None else [past, trials]
    length = max(each.valid.shape[1] for each in pieces)
    joined = {name: [lengthened(getattr(each, name), length) for each in pieces] for name in vars(trials)}
    # Copies: a slice of a tensor would keep all of it in memory.
    return Trials(**{name: torch.cat(values)[-count:].clone() for name, values in joined.items()})


def lengthened(values: Tensor, length: int) -> Tensor:
    """Return ``[B, L, ...]`` padded with zeros to ``[B, length, ...]``."""
    return torch.cat([values, values.new_zeros(len(values), length - values.shape[1], *values.shape[2:])], 1)
