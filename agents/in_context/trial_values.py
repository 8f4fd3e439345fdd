"""The units in which a critic gives the values of a trial's steps: a scale of returns, and what may still be ahead."""

import torch
from torch import Tensor

from metarl.rollouts.trials import Trials


def no_square(device: torch.device) -> Tensor:
    """Return the mean square before the first number, float64 ``[]``."""
    return torch.zeros((), dtype=torch.float64, device=device)


def root_or_one(square: Tensor) -> Tensor:
    """Return the root of a mean square, or 1 where it is 0, ``[]``."""
    return torch.where(square > 0, square.sqrt(), 1.0)


def share_ahead(trials: Trials, discounts: tuple[float, float], episodes: int, horizon: int) -> Tensor:
    """Return the fraction of a trial's discounted steps that may still be ahead at each step, ``[B, L]``, 1 at first.

    A trial may have ``episodes`` episodes of ``horizon`` steps each; the steps that an episode did not take are gone.

    Args:
        trials: B of them.
        discounts: per step of the trial, and per end of an episode inside it.
        episodes: at most in a trial.
        horizon: steps of an episode, at most.
    """
    discount, episode_discount = discounts
    steps = torch.arange(trials.starts.shape[1], device=trials.starts.device)
    begun = (trials.starts * steps).cummax(-1).values
    here, later = horizon - (steps - begun), episodes - trials.starts.cumsum(-1)
    if episode_discount == 1:
        ahead = (later * horizon + here).clamp(min=0).to(trials.rewards.dtype)
        if discount == 1:
            return ahead / (episodes * horizon)
        return (1 - discount**ahead) / (1 - discount ** (episodes * horizon))
    here, later = (each.clamp(min=0).to(trials.rewards.dtype) for each in (here, later))
    # The steps of a whole episode, and the factor on those of the next one: for its end, and for the steps before it.
    whole, less = geometric(discount, here.new_full((), horizon)), episode_discount * discount**horizon
    rest = whole * episode_discount * discount**here * geometric(less, later)
    return (geometric(discount, here) + rest) / (whole * geometric(less, here.new_full((), episodes)))


def geometric(factor: float, count: Tensor) -> Tensor:
    """Return the sum of the first ``count`` terms of ``1 + factor + factor^2 + ...``, ``[...]``."""
    return count if factor == 1 else (1 - factor**count) / (1 - factor)
