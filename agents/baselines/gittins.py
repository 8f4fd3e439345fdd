"""Gittins indices of Bernoulli arms (Gittins 1979)."""

import torch
from torch import Tensor

# Sure rewards among which an index is found, and pulls ahead after which an arm's mean counts as known.
STEPS, AHEAD = 201, 200


def gittins_indices(pulls: int, discount: float) -> Tensor:
    """Return the indices of an arm ``[pulls + 1, pulls + 1]``, by its pulls and by its wins among them.

    An arm's reward probability is uniform before the first pull. Its index is the sure reward per step for which one
    would just as soon give up the arm for good: pulling the arm with the highest index maximises the expected
    discounted reward of several arms.

    Args:
        pulls: largest number of pulls.
        discount: of rewards, per pull, below 1.
    """
    sure = torch.linspace(0, 1, STEPS, dtype=torch.float64)
    retired = sure / (1 - discount)
    indices = torch.zeros(pulls + 1, pulls + 1)
    # Values of an arm by wins and sure reward, from the largest number of pulls back to none.
    last = pulls + AHEAD
    values = torch.maximum(retired, _means(last) / (1 - discount))
    for count in range(last - 1, -1, -1):
        means = _means(count)
        continued = means * (1 + discount * values[1:]) + (1 - means) * discount * values[:-1]
        if count <= pulls:
            indices[count, : count + 1] = _crossing(sure, continued - retired)
        values = torch.maximum(retired, continued)
    return indices


def _means(count: int) -> Tensor:
    """Return the expected reward of an arm after ``count`` pulls ``[count + 1, 1]``, by its wins."""
    return ((torch.arange(count + 1, dtype=torch.float64) + 1) / (count + 2)).unsqueeze(1)


def _crossing(sure: Tensor, advantages: Tensor) -> Tensor:
    """Return where falling advantages ``[wins, STEPS]`` of continuing become 0, interpolated between sure rewards."""
    after = (advantages > 0).sum(1).clamp(1, STEPS - 1).unsqueeze(1)
    low, high = advantages.gather(1, after - 1), advantages.gather(1, after)
    share = (low / (low - high)).clamp(0, 1).squeeze(1)
    return (sure[after.squeeze(1) - 1] + share * (sure[1] - sure[0])).float()
