"""Returns and advantages, for rollouts in which each row ``[n, e]`` is one episode from its first step on.

Because a row never holds two episodes, a discounted sum over its future is one product with a triangular matrix, and
no Python loop over time is needed.
"""

import torch
from torch import Tensor

from metarl.processes import ONE_PROCESS, Processes

# The smallest standard deviation that a task's advantages are divided by, as a share of the batch's root mean square.
DEVIATION_FLOOR = 0.1


def discount_matrix(steps: int, factor: float, like: Tensor) -> Tensor:
    """Return the matrix ``[T, T]`` with ``factor ** (k - t)`` at row k >= column t, and zero elsewhere."""
    time = torch.arange(steps, device=like.device)
    distance = time[:, None] - time[None, :]
    powers = torch.pow(torch.tensor(factor, dtype=like.dtype, device=like.device), distance.clamp(min=0))
    return torch.where(distance >= 0, powers, torch.zeros_like(powers))


def discounted_returns(rewards: Tensor, valid: Tensor, discount: float) -> Tensor:
    """Return the discounted sum of the rewards still to come in the episode, ``[N, E, T]``.

    Args:
        rewards: ``[N, E, T]``.
        valid: bool ``[N, E, T]``, true inside the episode.
        discount: per step, in [0, 1].
    """
    return (rewards * valid) @ discount_matrix(rewards.shape[-1], discount, rewards)


def generalized_advantages(
    rewards: Tensor,
    values: Tensor,
    final_values: Tensor,
    terminated: Tensor,
    valid: Tensor,
    discount: float,
    gae_lambda: float,
) -> Tensor:
    """Return generalised advantage estimates ``[N, E, T]`` (Schulman et al. 2016, eq. 16).

    The value after an episode's last step is ``final_values`` where the episode was truncated (bootstrap), and zero
    where it terminated: the horizon is the experimenter's choice, and the return goes on after it.

    Args:
        rewards: ``[N, E, T]``.
        values: ``[N, E, T]``, of the observations before each step.
        final_values: ``[N, E]``, of the observation after the episode's last step.
        terminated: bool ``[N, E, T]``.
        valid: bool ``[N, E, T]``, true inside the episode.
        discount: per step, in [0, 1].
        gae_lambda: in [0, 1]; 1 is the Monte Carlo return minus the value.
    """
    # The next step's value inside the episode, the final one at its last step.
    next_valid = torch.cat([valid[..., 1:], torch.zeros_like(valid[..., :1])], -1)
    shifted = torch.cat([values[..., 1:], final_values.unsqueeze(-1)], -1)
    next_values = torch.where(next_valid, shifted, final_values.unsqueeze(-1)) * ~terminated
    errors = (rewards + discount * next_values - values) * valid
    return errors @ discount_matrix(rewards.shape[-1], discount * gae_lambda, rewards)


def normalize_per_task(values: Tensor, valid: Tensor, processes: Processes = ONE_PROCESS) -> Tensor:
    """Shift ``[N, E, T]`` to mean 0 over the valid steps of each task, and divide by the task's standard deviation.

    The divisor is at least ``DEVIATION_FLOOR`` times the root mean square of all tasks' standard deviations. Where all
    episodes of a task earn the same, what is left of its advantages is the misfit of the baseline; divided by its own
    standard deviation it would move the policy as far as the tasks in which some episodes were better than others
    (docs/adaptation.md has the measurements). Steps outside episodes become zero.

    Args:
        values: ``[N, E, T]``.
        valid: bool ``[N, E, T]``, true inside the episode.
        processes: those whose tasks make up the batch.
    """
    count = valid.sum((1, 2), keepdim=True)
    centred = (values - (values * valid).sum((1, 2), keepdim=True) / count) * valid
    variances = centred.square().sum((1, 2), keepdim=True) / count
    mean_square = processes.mean(processes.weight(len(variances)) * variances.mean())
    # Not clamp: a NaN of any task reaches all of them, so that every process refuses the update.
    deviations = torch.maximum(variances.sqrt(), DEVIATION_FLOOR * mean_square.sqrt())
    return centred / (deviations + 1e-8)


def per_task_mean(values: Tensor, valid: Tensor) -> Tensor:
    """Return the mean ``[N]`` of ``[N, E, T]`` over the valid steps of each task."""
    return (values * valid).sum((1, 2)) / valid.sum((1, 2))
