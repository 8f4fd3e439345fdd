"""Returns and advantages, for rollouts in which each row ``[n, e]`` is one episode from its first step on.

Because a row never holds two episodes, discounted sums over the future are one product with a triangular matrix,
without a Python loop over time; long rows are summed by blocks, then across blocks. Where the discount differs between
steps, as in trials with a discount of their own at the ends of episodes, they are a scan of log2 T rounds.
"""

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.functional import pad

from metarl.devices.processes import ONE_PROCESS, Processes

# Floor on the standard deviation that a task's advantages are divided by, relative to the batch's root mean square.
DEVIATION_FLOOR = 0.1
# Steps of a row that are summed by one matrix.
BLOCK = 512


def discount_matrix(steps: int, factor: float, like: Tensor) -> Tensor:
    """Return the matrix ``[T, T]`` with ``factor ** (k - t)`` at row k >= column t, and zero elsewhere.

    The last few are cached, so do not write to the returned tensor.
    """
    return _discount_matrix(steps, factor, like.dtype, like.device)


@lru_cache(maxsize=8)
def _discount_matrix(steps: int, factor: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    time = torch.arange(steps, device=device)
    distance = time[:, None] - time[None, :]
    powers = torch.pow(torch.full((), factor, dtype=dtype, device=device), distance.clamp(min=0))
    return torch.where(distance >= 0, powers, torch.zeros_like(powers))


def discounted_sums(terms: Tensor, factors: float | Tensor) -> Tensor:
    """Return ``s_t = terms_t + factors_t * s_{t+1}``, ``[..., T]``; nothing follows the last step.

    With several factors, round r adds the sum of the 2^r steps that follow the 2^r steps summed so far (Hillis and
    Steele 1986). There are only products and sums, so a factor may be 0.

    Args:
        terms: ``[..., T]``.
        factors: in [0, 1], one for all steps or ``[..., T]``.
    """
    if not isinstance(factors, Tensor):
        return _sums_by_blocks(terms, factors)
    reach = 1
    while reach < terms.shape[-1]:
        following, further = (pad(each[..., reach:], (0, reach)) for each in (terms, factors))
        terms, factors = terms + factors * following, factors * further
        reach *= 2
    return terms


def _sums_by_blocks(terms: Tensor, factor: float) -> Tensor:
    steps = terms.shape[-1]
    if steps <= BLOCK:
        return terms @ discount_matrix(steps, factor, terms)
    count = -(-steps // BLOCK)
    blocks = pad(terms, (0, count * BLOCK - steps)).view(*terms.shape[:-1], count, BLOCK)
    within = blocks @ discount_matrix(BLOCK, factor, terms)
    # What follows a block is the sum from the first step of the next one, as far away as the block is long.
    following = pad(_sums_by_blocks(within[..., 0], factor**BLOCK)[..., 1:], (0, 1))
    distances = torch.arange(BLOCK, 0, -1, device=terms.device)
    powers = torch.full_like(distances, factor, dtype=terms.dtype).pow(distances)
    return (within + following.unsqueeze(-1) * powers).flatten(-2)[..., :steps]


def discounted_returns(rewards: Tensor, valid: Tensor, discount: float | Tensor) -> Tensor:
    """Return the discounted sum of the remaining rewards of the episode, ``[N, E, T]``.

    Args:
        rewards: ``[N, E, T]``.
        valid: bool ``[N, E, T]``, true inside the episode.
        discount: of what follows a step, in [0, 1]; one for all steps or ``[N, E, T]``.
    """
    return discounted_sums(rewards * valid, discount)


def generalized_advantages(
    rewards: Tensor,
    values: Tensor,
    final_values: Tensor,
    terminated: Tensor,
    valid: Tensor,
    discount: float | Tensor,
    gae_lambda: float,
) -> Tensor:
    """Return generalised advantage estimates ``[N, E, T]`` (Schulman et al. 2016, eq. 16).

    The value after an episode's last step is ``final_values`` if the episode was truncated (bootstrap), and zero if it
    terminated.

    Args:
        rewards: ``[N, E, T]``.
        values: ``[N, E, T]``, of the observations before each step.
        final_values: ``[N, E]``, of the observation after the episode's last step.
        terminated: bool ``[N, E, T]``.
        valid: bool ``[N, E, T]``, true inside the episode.
        discount: of what follows a step, in [0, 1]; one for all steps or ``[N, E, T]``.
        gae_lambda: in [0, 1]; 1 is the Monte Carlo return minus the value.
    """
    # Value of the next step inside the episode, the final value at its last step.
    next_valid = torch.cat([valid[..., 1:], torch.zeros_like(valid[..., :1])], -1)
    shifted = torch.cat([values[..., 1:], final_values.unsqueeze(-1)], -1)
    next_values = torch.where(next_valid, shifted, final_values.unsqueeze(-1)) * ~terminated
    errors = (rewards + discount * next_values - values) * valid
    return discounted_sums(errors, discount * gae_lambda)


def normalize_per_task(
    values: Tensor, valid: Tensor, processes: Processes = ONE_PROCESS, floor: float = DEVIATION_FLOOR
) -> Tensor:
    """Normalise ``[N, E, T]`` over the valid steps of each task to mean 0 and standard deviation 1.

    The standard deviation has a floor, ``floor`` times the root mean square of all tasks' standard deviations. If all
    episodes of a task have the same return, its advantages are only the error of the baseline; divided by their own
    standard deviation they would move the policy as much as tasks in which some episodes are better than others
    (docs/adaptation.md has the measurements). Steps outside episodes become zero.

    Args:
        values: ``[N, E, T]``.
        valid: bool ``[N, E, T]``, true inside the episode.
        processes: the processes whose tasks form the batch.
        floor: 0 for none.
    """
    count = valid.sum((1, 2), keepdim=True)
    centred = (values - (values * valid).sum((1, 2), keepdim=True) / count) * valid
    variances = centred.square().sum((1, 2), keepdim=True) / count
    mean_square = processes.mean(processes.weight(len(variances)) * variances.mean())
    # Not clamp: a NaN in any task must reach all of them, so that every process rejects the update.
    deviations = torch.maximum(variances.sqrt(), floor * mean_square.sqrt())
    return centred / (deviations + 1e-8)


def per_task_mean(values: Tensor, valid: Tensor) -> Tensor:
    """Return the mean ``[N]`` of ``[N, E, T]`` over the valid steps of each task."""
    return (values * valid).sum((1, 2)) / valid.sum((1, 2))
