"""Returns and advantages, for rollouts in which each row ``[n, e]`` is one episode from its first step on.

Because a row never holds two episodes, a discounted sum over its future is one product with a triangular matrix, and
no Python loop over time is needed.
"""

import torch
from torch import Tensor


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


def normalize_per_task(values: Tensor, valid: Tensor) -> Tensor:
    """Shift and scale ``[N, E, T]`` to zero mean and unit standard deviation over the valid steps of each task.

    Steps outside episodes become zero.
    """
    count = valid.sum((1, 2), keepdim=True)
    centred = (values - (values * valid).sum((1, 2), keepdim=True) / count) * valid
    deviation = (centred.square().sum((1, 2), keepdim=True) / count).sqrt()
    return centred / (deviation + 1e-8)


def per_task_mean(values: Tensor, valid: Tensor) -> Tensor:
    """Return the mean ``[N]`` of ``[N, E, T]`` over the valid steps of each task."""
    return (values * valid).sum((1, 2)) / valid.sum((1, 2))
