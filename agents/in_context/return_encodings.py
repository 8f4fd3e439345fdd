"""How critics express returns: as numbers, or as a classification into bins, which does not depend on their scale."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

# The least standard deviation of targets by which errors are divided.
LEAST_SPREAD = 0.01
# Standard deviation of a new critic's distribution of returns, in bins.
INITIAL_WIDTH = 4.0


class ReturnEncoding(nn.Module, ABC):
    """How the outputs of a critic express a return.

    Attributes:
        outputs: number O of outputs.
    """

    outputs: int

    @abstractmethod
    def initial(self) -> Tensor:
        """Return the biases ``[O]`` of the outputs of a new critic, which express a return near 0."""

    @abstractmethod
    def values(self, outputs: Tensor) -> Tensor:
        """Return the returns ``[...]`` that outputs ``[..., O]`` express."""

    @abstractmethod
    def losses(self, outputs: Tensor, targets: Tensor, spread: Tensor) -> Tensor:
        """Return the losses ``[...]`` of outputs ``[..., O]``.

        Args:
            outputs: of critics.
            targets: returns, broadcastable to ``[...]``.
            spread: standard deviation of targets, broadcastable to ``[...]``.
        """


class ScalarReturns(ReturnEncoding):
    """The output is the return; errors are divided by the standard deviation of targets, and squared."""

    outputs = 1

    def initial(self) -> Tensor:
        """Return 0."""
        return torch.zeros(1)

    def values(self, outputs: Tensor) -> Tensor:
        """Return the outputs."""
        return outputs.squeeze(-1)

    def losses(self, outputs: Tensor, targets: Tensor, spread: Tensor) -> Tensor:
        """Return squared errors."""
        return ((self.values(outputs) - targets) / spread).square()


class TwoHotReturns(ReturnEncoding):
    """The outputs are logits of bins; the return is the mean of the bins (Hafner et al. 2023, "symexp twohot").

    Bins are evenly spaced in symlog(scale * return), where symlog(x) is sign(x) ln(1 + abs(x)). A target is expressed
    by the two bins around it, with weights whose mean is the target. So the gradient with respect to the
    logits is bounded for returns of any size.

    Args:
        bins: number of bins.
        largest: largest return; larger ones are clipped.
        scale: bins are evenly spaced up to returns of about 1 / scale, and exponentially beyond.
    """

    bins: Tensor

    def __init__(self, bins: int, largest: float, scale: float) -> None:
        super().__init__()
        self.outputs = bins
        end = torch.tensor(largest * scale).log1p().item()
        codes = torch.linspace(-end, end, bins)
        self.register_buffer("bins", codes.sign() * codes.abs().expm1() / scale, persistent=False)

    def initial(self) -> Tensor:
        """Return logits of a Gaussian in symlog around 0: uniform ones would put most of the mean in the outer bins."""
        places = (torch.arange(self.outputs) - (self.outputs - 1) / 2) / INITIAL_WIDTH
        return -0.5 * places.square()

    def values(self, outputs: Tensor) -> Tensor:
        """Return the means of the bins."""
        return outputs.softmax(-1) @ self.bins

    def losses(self, outputs: Tensor, targets: Tensor, spread: Tensor) -> Tensor:
        """Return cross-entropies, in nats."""
        lower, share = self.encode(targets)
        log_probs = outputs.log_softmax(-1)
        lower, share = torch.broadcast_to(lower, log_probs.shape[:-1]), torch.broadcast_to(share, log_probs.shape[:-1])
        below, above = log_probs.gather(-1, torch.stack([lower, lower + 1], -1)).unbind(-1)
        return -((1 - share) * below + share * above)

    def encode(self, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return the bin below each target ``[...]``, and the weight of the bin above it."""
        clipped = targets.clamp(self.bins[0], self.bins[-1])
        lower = torch.searchsorted(self.bins, clipped.contiguous(), right=True).sub(1).clamp(0, self.outputs - 2)
        start, end = self.bins[lower], self.bins[lower + 1]
        return lower, (clipped - start) / (end - start)


class Spread(nn.Module):
    """Standard deviation of the targets of each of G discounts, from running moments.

    All updates count alike until one has the weight ``rate``; from then on the oldest are forgotten.

    Args:
        discounts: G.
        rate: least weight of an update.
    """

    count: Tensor
    moments: Tensor

    def __init__(self, discounts: int, rate: float = 5e-4) -> None:
        super().__init__()
        self._rate = rate
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("moments", torch.stack([torch.zeros(discounts), torch.ones(discounts)]))

    def forward(self) -> Tensor:
        """Return the standard deviations ``[G]``, at least ``LEAST_SPREAD``."""
        mean, square = self.moments
        variance: Tensor = square - mean.square()
        return variance.clamp(min=LEAST_SPREAD**2).sqrt()

    @torch.no_grad()
    def update(self, moments: Tensor) -> None:
        """Add the mean of targets and of their squares, ``[2, G]``, in place."""
        self.count.add_(1)
        self.moments.lerp_(moments, (1 / self.count).clamp(min=self._rate))
