"""Terms of Meta-World's second rewards (Yu et al. 2020, appendix), over any batch shape."""

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
    return _long_tail((distance - radius).clamp_min(0), margin)


def near_gaussian(distance: Tensor, radius: float, margin: Tensor | float) -> Tensor:
    """Return 1 up to ``radius``, and beyond it a Gaussian that is 0.1 at ``margin`` outside."""
    outside = (distance - radius).clamp_min(0) / margin
    return (math.log(AT_MARGIN) * outside.square()).exp()


def between(value: Tensor, low: float, high: float, margin: Tensor | float) -> Tensor:
    """Return 1 in ``[low, high]``, and on both sides a long tail that is 0.1 at ``margin`` outside."""
    return _long_tail(torch.maximum(low - value, value - high).clamp_min(0), margin)


def both(first: Tensor, second: Tensor) -> Tensor:
    """Return the Hamacher product ``ab / (a + b - ab)`` of two numbers in [0, 1], which is 0 where either is."""
    product = first * second
    return product / (first + second - product).clamp_min(torch.finfo(product.dtype).tiny)


def norm(vectors: Tensor) -> Tensor:
    """Return the Euclidean length of vectors ``[..., D]``."""
    length: Tensor = torch.linalg.vector_norm(vectors, dim=-1)
    return length


def _long_tail(outside: Tensor, margin: Tensor | float) -> Tensor:
    return 1 / (_LONG_TAIL * (outside / margin).square() + 1)
