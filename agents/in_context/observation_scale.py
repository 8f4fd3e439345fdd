"""Observation normalisation by running moments."""

import torch
from torch import Tensor, nn

from metarl.devices.processes import ONE_PROCESS, Processes

MOST_DEVIATIONS = 10.0


class ObservationScale(nn.Module):
    """Normalises observations to mean 0 and standard deviation 1 over all steps so far, and clips them at ±10.

    Before the first update it leaves them unchanged. Its moments are buffers of the network, so they are in
    checkpoints.

    Args:
        size: size D of an observation.
    """

    count: Tensor
    mean: Tensor
    variance: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("variance", torch.ones(size))

    def forward(self, observations: Tensor) -> Tensor:
        """Return normalised observations ``[..., D]``."""
        deviations = (observations - self.mean) / (self.variance + 1e-8).sqrt()
        return deviations.clamp(-MOST_DEVIATIONS, MOST_DEVIATIONS)

    @torch.no_grad()
    def update(self, observations: Tensor, valid: Tensor, processes: Processes = ONE_PROCESS) -> None:
        """Add new observations to the running moments, in place.

        Moments are combined as in Chan, Golub and LeVeque (1979).

        Args:
            observations: unnormalised, ``[..., D]``.
            valid: bool ``[...]``, which of them count; at least one.
            processes: the processes whose observations are added.
        """
        mean, variance, count = processes.moments(observations[valid])
        share = count / (self.count + count)
        difference = mean - self.mean
        between = share * (1 - share) * difference.square()
        self.variance.copy_((1 - share) * self.variance + share * variance + between)
        self.mean.add_(share * difference)
        self.count.add_(count)
