"""State-value baselines, fitted to the same rollout whose advantages they are used for.

A ridge regression on F features of S samples has two forms: the primal one solves F equations, the dual one S
(Saunders, Gammerman and Vovk 1998). If both are large, as with images, observations are first projected randomly to a
few dimensions, which approximately preserves distances (Johnson and Lindenstrauss 1984).
"""

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from metarl.devices.processes import ONE_PROCESS, Processes
from metarl.rollouts.returns import (
    DEVIATION_FLOOR,
    discounted_returns,
    generalized_advantages,
    normalize_per_task,
)
from metarl.rollouts.rollout import Rollout
from metarl.seeding import generator

RIDGE = 1e-5
OBSERVATION_CLIP = 10.0
TIME_SCALE = 100.0
# Up to this many features the primal form takes milliseconds per task, and is always used.
PRIMAL_FEATURES = 768
# The maximum number of equations per task, the maximum size of an observation that is used as it is, and the size to
# which larger ones are projected. A task then takes at most 50 MB.
MAX_EQUATIONS, MAX_OBSERVATION, PROJECTED = 1024, 2048, 128


def linear_features(observations: Tensor, time: Tensor) -> Tensor:
    """Return the features ``[..., 2D + 4]`` of observations ``[..., D]`` at steps ``time`` (Duan et al. 2016, app. C).

    They are the observation (clipped to ±10), its square, the first three powers of time/100, and one.
    """
    clipped = observations.clamp(-OBSERVATION_CLIP, OBSERVATION_CLIP)
    scaled = (time.to(clipped.dtype) / TIME_SCALE).expand(clipped.shape[:-1]).unsqueeze(-1)
    return torch.cat([clipped, clipped.square(), scaled, scaled**2, scaled**3, torch.ones_like(scaled)], -1)


@dataclass(frozen=True)
class LinearBaseline:
    """A ridge regression of returns on ``linear_features`` for each task.

    Shapes: ``weights`` ``[N, F]``.
    """

    weights: Tensor

    @classmethod
    @torch.no_grad()
    def fit(cls, features: Tensor, returns: Tensor, valid: Tensor) -> "LinearBaseline":
        """Fit one baseline to each task's own data only.

        The equations are solved in float64: the powers of time make them ill-conditioned. Above ``PRIMAL_FEATURES``
        features they are solved in the dual form if a task has fewer samples than features.

        Args:
            features: ``[N, E, T, F]``.
            returns: targets ``[N, E, T]``.
            valid: bool ``[N, E, T]``.
        """
        inputs = (features * valid.unsqueeze(-1)).flatten(1, 2)
        targets = (returns * valid).flatten(1, 2).unsqueeze(-1).double()
        if inputs.shape[-1] > max(PRIMAL_FEATURES, inputs.shape[1]):
            # One task at a time, so that only one task's features are in float64.
            dual = [_dual_weights(own.double(), target) for own, target in zip(inputs, targets, strict=True)]
            return cls(torch.stack(dual).to(features.dtype))
        inputs = inputs.double()
        gram = inputs.mT @ inputs + RIDGE * torch.eye(inputs.shape[-1], dtype=inputs.dtype, device=inputs.device)
        weights = _solve(gram, inputs.mT @ targets).squeeze(-1)
        return cls(weights.to(features.dtype))

    def __call__(self, features: Tensor) -> Tensor:
        """Return values ``[N, ...]`` of features ``[N, ..., F]``."""
        flat = features.flatten(1, -2) @ self.weights.unsqueeze(-1)
        return flat.view(features.shape[:-1])


def _dual_weights(inputs: Tensor, targets: Tensor) -> Tensor:
    """Return the weights ``[F]`` of one task's regression of targets ``[S, 1]`` on inputs ``[S, F]``, with S < F."""
    kernel = inputs @ inputs.mT + RIDGE * torch.eye(len(inputs), dtype=inputs.dtype, device=inputs.device)
    return (inputs.mT @ _solve(kernel, targets)).squeeze(-1)


def _solve(matrices: Tensor, targets: Tensor) -> Tensor:
    """Solve symmetric positive definite systems ``[..., F, F]`` with Cholesky; NaN where rounding hides the ridge.

    ``torch.linalg.solve`` is not used: the LU factorisation of a batch of large matrices hangs with oneMKL and two
    threads (torch 2.13).
    """
    factors, failed = torch.linalg.cholesky_ex(matrices)
    solution = torch.cholesky_solve(targets, factors)
    return solution.masked_fill((failed > 0)[..., None, None], torch.nan)


def projected(observations: Tensor, samples: int) -> Tensor:
    """Return observations ``[..., D]``, or random projections ``[..., 128]`` of them if the fit would be too large.

    Args:
        observations: of a rollout.
        samples: number of steps per task that the baseline is fitted to.
    """
    size = observations.shape[-1]
    equations = min(2 * size + 4, samples)
    if 2 * size + 4 <= PRIMAL_FEATURES or (equations <= MAX_EQUATIONS and size <= MAX_OBSERVATION):
        return observations
    clipped = observations.clamp(-OBSERVATION_CLIP, OBSERVATION_CLIP)
    weights = _projection(size)
    return clipped @ weights.to(observations)


@cache
def _projection(size: int) -> Tensor:
    """Return Gaussian weights ``[D, 128]``, the same in every process, scaled to preserve norms."""
    stream = generator("baseline projection", size)
    return torch.randn(size, PROJECTED, generator=stream).div_(size**0.5)


@torch.no_grad()
def estimate_advantages(
    rollout: Rollout,
    observations: Tensor,
    final: Tensor,
    discount: float,
    lam: float,
    processes: Processes = ONE_PROCESS,
    floor: float = DEVIATION_FLOOR,
) -> Tensor:
    """Return normalised advantages ``[N, E, T]`` of a rollout: baseline, GAE and normalisation.

    Each task has its own baseline, mean and standard deviation; only the floor on the standard deviation depends on the
    other tasks, see ``normalize_per_task``.

    Args:
        rollout: the episodes.
        observations: network inputs ``[N, E, T, D]``, before each step.
        final: network inputs ``[N, E, D]``, after each episode's last step.
        discount: discount per step.
        lam: lambda of the generalised advantage estimate.
        processes: the processes whose tasks form the batch.
        floor: as in ``normalize_per_task``.
    """
    steps = torch.arange(rollout.rewards.shape[-1], device=final.device)
    samples = rollout.valid[0].numel()
    features = linear_features(projected(observations, samples), steps)
    final_features = linear_features(projected(final, samples), rollout.valid.sum(-1))
    returns = discounted_returns(rollout.rewards, rollout.valid, discount)
    baseline = LinearBaseline.fit(features, returns, rollout.valid)
    advantages = generalized_advantages(
        rollout.rewards, baseline(features), baseline(final_features), rollout.terminated, rollout.valid, discount, lam
    )
    return normalize_per_task(advantages, rollout.valid, processes, floor)
