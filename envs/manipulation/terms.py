"""Terms of Meta-World's v2 rewards (Yu et al. 2020, appendix), for any batch shape.

They are called dozens of times per step on few worlds, where allocating a tensor costs as much as computing it. So
intermediate results are modified in place.
"""

import math

import torch
from torch import Tensor

# The value of a tolerance at its margin.
VALUE_AT_MARGIN = 0.1
_LONG_TAIL = 1 / VALUE_AT_MARGIN - 1


def near(distance: Tensor, radius: float, margin: Tensor | float) -> Tensor:
    """Return 1 up to ``radius`` and a long tail beyond it, which is 0.1 at ``radius + margin``.

    Args:
        distance: ``[...]``, non-negative.
        radius: the value is 1 up to here.
        margin: non-zero; a number or a tensor of the shape of ``distance``.
    """
    return _long_tail((distance - radius).clamp_min_(0), margin)


def near_gaussian(distance: Tensor, radius: float, margin: Tensor | float) -> Tensor:
    """Return 1 up to ``radius`` and a Gaussian tail beyond it, which is 0.1 at ``radius + margin``."""
    return (distance - radius).clamp_min_(0).div_(margin).square_().mul_(math.log(VALUE_AT_MARGIN)).exp_()


def between(value: Tensor, low: float, high: float, margin: Tensor | float) -> Tensor:
    """Return 1 in ``[low, high]`` and a long tail on either side, which is 0.1 at a distance of ``margin``."""
    return _long_tail(torch.maximum(low - value, value - high).clamp_min_(0), margin)


def hamacher_product(first: Tensor, second: Tensor) -> Tensor:
    """Return the Hamacher product ``ab / (a + b - ab)`` of two numbers in [0, 1]; it is 0 where either is 0."""
    product = first * second
    # lerp(a, 1, b) is a + b - ab.
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
    """Return a constant number or vector, created once and cached; do not write to it."""
    key = numbers, dtype, device
    if key not in _CONSTANTS:
        _CONSTANTS[key] = torch.tensor(numbers, dtype=dtype, device=device)
    return _CONSTANTS[key]
