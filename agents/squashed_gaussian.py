"""The action distribution of SAC: a Gaussian squashed into (-1, 1) by tanh."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import softplus

from metarl.distributions import DiagonalGaussian

# tanh of what lies beyond rounds to 1 in float32, whose inverse is infinite.
EDGE = 1 - 1e-6


@dataclass(frozen=True)
class SquashedGaussian(DiagonalGaussian):
    """tanh of independent Gaussians. Shapes: ``mean`` and ``log_std``, of the Gaussians, ``[..., A]``.

    The KL divergence is that of the Gaussians.
    """

    def sample(self, generator: torch.Generator) -> Tensor:
        """Draw one action ``[..., A]`` from each distribution."""
        return super().sample(generator).tanh().clamp(-EDGE, EDGE)

    def mode(self) -> Tensor:
        """Return the squashed means ``[..., A]``, which are medians."""
        return self.mean.tanh()

    def log_prob(self, actions: Tensor) -> Tensor:
        """Return log-densities ``[...]`` of ``actions`` ``[..., A]`` in (-1, 1)."""
        before = actions.clamp(-EDGE, EDGE).atanh()
        # log of the derivative of tanh, 1 - tanh², without cancellation.
        slopes = 2 * (math.log(2.0) - before - softplus(-2 * before))
        return super().log_prob(before) - slopes.sum(-1)
