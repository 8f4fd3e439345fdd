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
    return product.div_((first + second).sub_(product).clamp_min_(torch.finfo(product.dtype).tiny))


def norm(vectors: Tensor) -> Tensor:
    """Return the Euclidean length of vectors ``[..., D]``."""
    length: Tensor = torch.linalg.vector_norm(vectors, dim=-1)
    return length


def _long_tail(outside: Tensor, margin: Tensor | float) -> Tensor:
    return outside.div_(margin).square_().mul_(_LONG_TAIL).add_(1).reciprocal_()
