"""Action distributions as plain tensors, batched over tasks and any further axes.

The last axis of a parameter tensor is the action's. Log-probabilities are summed over it, never averaged, so the
likelihood ratio of two policies is the ratio for whole actions.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Self

import torch
from torch import Tensor
from torch.nn.functional import pad, softplus

from metarl.numerics.noise import draw_rows, exponential

LOG_TWO_PI = math.log(2 * math.pi)
# Beyond this, tanh rounds to 1 in float32, whose inverse is infinite.
EDGE = 1 - 1e-6
# Logit of an impossible action: its probability is 0, and 0 times the logit is 0 instead of NaN.
IMPOSSIBLE = -1e9


@dataclass(frozen=True)
class Distribution(ABC):
    """A batch of action distributions; the fields of a subclass are its parameter tensors."""

    def tensors(self) -> tuple[Tensor, ...]:
        """Return the parameter tensors, in the order of the fields."""
        return tuple(getattr(self, field.name) for field in fields(self))

    def map(self, function: Callable[[Tensor], Tensor]) -> Self:
        """Apply ``function`` to every parameter tensor."""
        return type(self)(*map(function, self.tensors()))

    @abstractmethod
    def sample(self, generator: torch.Generator) -> Tensor:
        """Draw one action from each distribution."""

    @abstractmethod
    def mode(self) -> Tensor:
        """Return the most probable action of each distribution."""

    @abstractmethod
    def log_prob(self, actions: Tensor) -> Tensor:
        """Return the log-probability (or log-density) of one action for each distribution."""

    @abstractmethod
    def kl(self, other: Self) -> Tensor:
        """Return KL(self || other) for each pair of distributions, in nats."""


@dataclass(frozen=True)
class DiagonalGaussian(Distribution):
    """Independent Gaussians over the last axis. Shapes: ``mean`` and ``log_std`` ``[..., A]``, broadcastable."""

    mean: Tensor
    log_std: Tensor

    def sample(self, generator: torch.Generator) -> Tensor:
        """Draw one action ``[..., A]`` from each distribution."""
        noise = draw_rows(torch.randn, self.mean.shape, generator, device=self.mean.device, dtype=self.mean.dtype)
        return torch.addcmul(self.mean, noise, self.log_std.exp())

    def mode(self) -> Tensor:
        """Return the means ``[..., A]``."""
        return self.mean

    def log_prob(self, actions: Tensor) -> Tensor:
        """Return log-densities ``[...]`` of ``actions`` ``[..., A]``."""
        scaled = (actions - self.mean) * torch.exp(-self.log_std)
        constant = 0.5 * actions.shape[-1] * LOG_TWO_PI
        return -0.5 * scaled.square().sum(-1) - self.log_std.sum(-1) - constant

    def entropy(self) -> Tensor:
        """Return the differential entropies ``[...]``, in nats."""
        return (self.log_std.expand_as(self.mean) + 0.5 * (1 + LOG_TWO_PI)).sum(-1)

    def kl(self, other: Self) -> Tensor:
        """Return KL(self || other) ``[...]``, in nats."""
        spread = 0.5 * torch.exp(2 * (self.log_std - other.log_std)) - (self.log_std - other.log_std) - 0.5
        shift = 0.5 * ((self.mean - other.mean) * torch.exp(-other.log_std)).square()
        return (shift + spread).sum(-1)


@dataclass(frozen=True)
class Categorical(Distribution):
    """One of A actions. Shapes: ``logits`` ``[..., A]``, normalised or not."""

    logits: Tensor

    def sample(self, generator: torch.Generator) -> Tensor:
        """Draw one action ``[...]`` (int64) from each distribution, by the Gumbel trick."""
        device, kind = self.logits.device, self.logits.dtype
        times = draw_rows(exponential, self.logits.shape, generator, device=device, dtype=kind)
        return (self.logits - times.log()).argmax(-1)

    def mode(self) -> Tensor:
        """Return the most probable actions ``[...]`` (int64)."""
        return self.logits.argmax(-1)

    def log_prob(self, actions: Tensor) -> Tensor:
        """Return log-probabilities ``[...]`` of ``actions`` ``[...]`` (int64)."""
        return _log_probs(self.logits).gather(0, actions.unsqueeze(0)).squeeze(0)

    def entropy(self) -> Tensor:
        """Return the entropies ``[...]``, in nats."""
        own = _log_probs(self.logits)
        return -(own.exp() * own).sum(0)

    def kl(self, other: Self) -> Tensor:
        """Return KL(self || other) ``[...]``, in nats."""
        own, others = map(_log_probs, torch.broadcast_tensors(self.logits, other.logits))  # type: ignore[no-untyped-call]
        return (own.exp() * (own - others)).sum(0)


def _log_probs(logits: Tensor) -> Tensor:
    """Return logits ``[..., A]`` as log-probabilities ``[A, ...]``.

    The actions come first because CPU kernels work on many distributions at once along the last axis: for a few
    actions that is ten times faster.
    """
    return logits.movedim(-1, 0).contiguous().log_softmax(0)


@dataclass(frozen=True)
class MultiCategorical(Distribution):
    """K independent choices, the k-th one of A_k actions (a product of categoricals).

    Shapes: ``logits`` ``[..., K, A]``, where A is the largest A_k; entries beyond a choice's own actions are
    ``IMPOSSIBLE``.
    """

    logits: Tensor

    @classmethod
    def of(cls, logits: Tensor, counts: Sequence[int]) -> Self:
        """Make it from concatenated logits ``[..., A_1 + ... + A_K]``."""
        most = max(counts)
        pieces = torch.split(logits, list(counts), -1)
        return cls(torch.stack([pad(piece, (0, most - piece.shape[-1]), value=IMPOSSIBLE) for piece in pieces], -2))

    def sample(self, generator: torch.Generator) -> Tensor:
        """Draw one action ``[..., K]`` (int64) from each distribution."""
        return self._choices.sample(generator)

    def mode(self) -> Tensor:
        """Return the most probable actions ``[..., K]`` (int64)."""
        return self._choices.mode()

    def log_prob(self, actions: Tensor) -> Tensor:
        """Return log-probabilities ``[...]`` of ``actions`` ``[..., K]`` (int64)."""
        return self._choices.log_prob(actions).sum(-1)

    def entropy(self) -> Tensor:
        """Return the entropies ``[...]``, in nats."""
        return self._choices.entropy().sum(-1)

    def kl(self, other: Self) -> Tensor:
        """Return KL(self || other) ``[...]``, in nats."""
        return self._choices.kl(other._choices).sum(-1)

    @property
    def _choices(self) -> Categorical:
        return Categorical(self.logits)


@dataclass(frozen=True)
class Bernoulli(Distribution):
    """Independent zeros and ones over the last axis. Shapes: ``logits`` ``[..., A]`` of a one."""

    logits: Tensor

    def sample(self, generator: torch.Generator) -> Tensor:
        """Draw one action ``[..., A]`` (int64) from each distribution."""
        kind, device = self.logits.dtype, self.logits.device
        shares = draw_rows(torch.rand, self.logits.shape, generator, device=device, dtype=kind)
        return (shares < self.logits.sigmoid()).long()

    def mode(self) -> Tensor:
        """Return the most probable actions ``[..., A]`` (int64)."""
        return (self.logits > 0).long()

    def log_prob(self, actions: Tensor) -> Tensor:
        """Return log-probabilities ``[...]`` of ``actions`` ``[..., A]`` (int64)."""
        return (actions * self.logits - softplus(self.logits)).sum(-1)

    def entropy(self) -> Tensor:
        """Return the entropies ``[...]``, in nats."""
        return (softplus(self.logits) - self.logits.sigmoid() * self.logits).sum(-1)

    def kl(self, other: Self) -> Tensor:
        """Return KL(self || other) ``[...]``, in nats."""
        gap = self.logits.sigmoid() * (self.logits - other.logits)
        return (gap - softplus(self.logits) + softplus(other.logits)).sum(-1)


@dataclass(frozen=True)
class SquashedGaussian(DiagonalGaussian):
    """tanh of independent Gaussians. Shapes: ``mean`` and ``log_std``, of the Gaussians, ``[..., A]``.

    Its KL divergence equals that of the Gaussians.
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
        return super().log_prob(before) - _log_slopes(before).sum(-1)

    def of_noise(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Return the actions that standard normal ``noise`` ``[..., A]`` gives, and their log-densities ``[...]``.

        Both are functions of the parameters. The density is computed before rounding, so that its gradient pushes
        saturated policies back from the bounds.
        """
        gaussian = DiagonalGaussian(self.mean, self.log_std)
        before = torch.addcmul(self.mean, noise, self.log_std.exp())
        return before.tanh(), gaussian.log_prob(before) - _log_slopes(before).sum(-1)


def _log_slopes(before: Tensor) -> Tensor:
    """Return the logarithm of the derivative of tanh, 1 - tanh², without cancellation."""
    return 2 * (math.log(2.0) - before - softplus(-2 * before))
