"""Observations in comparable units: shifted and scaled by what was seen of them so far."""

import torch
from torch import Tensor, nn

MOST_DEVIATIONS = 10.0


class ObservationScale(nn.Module):
    """Shifts and scales observations to mean 0 and deviation 1 over all steps so far, and cuts them off at ±10.

    Before the first update it leaves them as they are. Its numbers are the network's, so that a checkpoint holds them.

    Args:
        size: numbers of an observation, D.
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
        """Return observations ``[..., D]`` in these units."""
        deviations = (observations - self.mean) / (self.variance + 1e-8).sqrt()
        return deviations.clamp(-MOST_DEVIATIONS, MOST_DEVIATIONS)

    @torch.no_grad()
    def update(self, observations: Tensor, valid: Tensor) -> None:
        """Add what was seen, in place.

        Moments of two sets are joined as Chan, Golub and LeVeque (1979) join them.

        Args:
            observations: as they were, ``[..., D]``.
            valid: bool ``[...]``, which of them count; at least one.
        """
        seen = observations[valid]
        mean, variance = seen.mean(0), seen.var(0, correction=0)
        share = len(seen) / (self.count + len(seen))
        difference = mean - self.mean
        between = share * (1 - share) * difference.square()
        self.variance.copy_((1 - share) * self.variance + share * variance + between)
        self.mean.add_(share * difference)
        self.count.add_(len(seen))
