"""Terms of Meta-World's second rewards (Yu et al. 2020, appendix), over any batch shape.

They are called dozens of times in every step on few worlds, where a new tensor costs as much as its numbers: what was
made here is changed in place.
"""

import math

import torch
from torch import Tensor

# What a long-tailed tolerance is at the margin.
AT_MARGIN = 0.1
_LONG_TAIL = 1 / AT_MARGIN - 1


def near(distance: Tensor, radius: float, margin: Tensor | float) -> Tensor:
    """Return 1 up to ``radius``, and beyond it a long tail that is 0.1 at ``margin`` outside.

    Args:
        distance: ``[...]``, not negative.
        radius: up to which the value is 1.
        margin: a number, or of the shape of ``distance``; not zero.
    """
    return _long_tail((distance - radius).clamp_min_(0), margin)


def near_gaussian(distance: Tensor, radius: float, margin: Tensor | float) -> Tensor:
    """Return 1 up to ``radius``, and beyond it a Gaussian that is 0.1 at ``margin`` outside."""
    return (distance - radius).clamp_min_(0).div_(margin).square_().mul_(math.log(AT_MARGIN)).exp_()


def between(value: Tensor, low: float, high: float, margin: Tensor | float) -> Tensor:
    """Return 1 in ``[low, high]``, and on both sides a long tail that is 0.1 at ``margin`` outside."""
    return _long_tail(torch.maximum(low - value, value - high).clamp_min_(0), margin)


def both(first: Tensor, second: Tensor) -> Tensor:
    """Return the Hamacher product ``ab / (a + b - ab)`` of two numbers in [0, 1], which is 0 where either is."""
    product = first * second
    # From a to 1 by the share b it is a + b - ab.
    return product.div_(torch.lerp(first, _one(first), second).clamp_min_(torch.finfo(product.dtype).tiny))


def norm(vectors: Tensor) -> Tensor:
    """Return the Euclidean length of vectors ``[..., D]``."""
    length: Tensor = torch.linalg.vector_norm(vectors, dim=-1)
    return length


def _long_tail(outside: Tensor, margin: Tensor | float) -> Tensor:
    share = outside.div_(margin)
    return torch.addcmul(_one(share), share, share, value=_LONG_TAIL).reciprocal_()


def _one(like: Tensor) -> Tensor:
    return constant(1.0, like.dtype, like.device)


_CONSTANTS: dict[tuple[float | tuple[float, ...], torch.dtype, torch.device], Tensor] = {}


def constant(numbers: float | tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return a fixed number or vector, made once and kept; not to be written to."""
    key = numbers, dtype, device
    if key not in _CONSTANTS:
        _CONSTANTS[key] = torch.tensor(numbers, dtype=dtype, device=device)
    return _CONSTANTS[key]
