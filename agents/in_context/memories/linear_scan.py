"""Linear recurrences ``h_t = a_t * h_{t-1} + b_t``, many steps at a time.

The steps are divided into about √L chunks of √L steps. The recurrence is computed from zero in all chunks in parallel,
which takes √L sequential steps; then the state at the start of each chunk, in another √L; then the effect of that state
on every step of the chunk. There are only products and sums, no quotients and no logarithms: with factors in [0, 1]
nothing can overflow, and a factor of 0 forgets exactly.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import pad


class LinearScan(torch.autograd.Function):
    """All ``h_t`` ``[B, L, H]`` from factors a and terms b ``[B, L, H]``, and the initial h ``[B, H]``.

    The gradients of the terms follow the same recurrence backwards in time, ``g_t = a_{t+1} * g_{t+1} + d_t``, where
    d_t is the gradient of h_t as an output.
    """

    @staticmethod
    def forward(ctx: Any, factors: Tensor, terms: Tensor, before: Tensor) -> Tensor:
        """Return the results of all steps."""
        found = scan(factors, terms, before)
        ctx.save_for_backward(factors, found, before)
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_outputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the gradients of factors, terms and the initial state."""
        factors, found, before = ctx.saved_tensors
        following = torch.cat([factors[:, 1:], torch.zeros_like(factors[:, :1])], 1)
        totals = scan(following.flip(1), grad_outputs.flip(1), torch.zeros_like(before)).flip(1)
        earlier = torch.cat([before.unsqueeze(1), found[:, :-1]], 1)
        return totals * earlier, totals, totals[:, 0] * factors[:, 0]


def read_linear(factors: Tensor, terms: Tensor, before: Tensor) -> Tensor:
    """Return all ``h_t`` with gradients; see ``LinearScan``."""
    found: Tensor = LinearScan.apply(factors, terms, before)  # type: ignore[no-untyped-call]
    return found


def scan(factors: Tensor, terms: Tensor, before: Tensor) -> Tensor:
    """Return all ``h_t``; see ``LinearScan``."""
    trials, length, size = terms.shape
    width = math.isqrt(length - 1) + 1
    count = -(-length // width)
    missing = count * width - length
    # Steps as [width, B, count, H]: the first axis runs through all chunks at once.
    shape = (trials, count, width, size)
    factors, terms = (pad(each, (0, 0, 0, missing)).view(shape).permute(2, 0, 1, 3) for each in (factors, terms))
    products = factors.cumprod(0)
    alone = [terms[0]]
    for factor, term in zip(factors[1:], terms[1:], strict=True):
        alone.append(torch.addcmul(term, factor, alone[-1]))
    given = [before]
    for chunk in range(count - 1):
        given.append(torch.addcmul(alone[-1][:, chunk], products[-1, :, chunk], given[-1]))
    found = torch.addcmul(torch.stack(alone), products, torch.stack(given, 1))
    return found.permute(1, 2, 0, 3).reshape(trials, count * width, size)[:, :length]
