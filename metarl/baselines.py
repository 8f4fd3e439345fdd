"""State-value baselines that are fitted to the rollout they serve."""

from dataclasses import dataclass

import torch
from torch import Tensor

from metarl.returns import discounted_returns, generalized_advantages, normalize_per_task
from metarl.rollout import Rollout

RIDGE = 1e-5
OBSERVATION_CLIP = 10.0
TIME_SCALE = 100.0


def linear_features(observations: Tensor, time: Tensor) -> Tensor:
    """Return the features ``[..., 2D + 4]`` of observations ``[..., D]`` at steps ``time`` (Duan et al. 2016, app. C).

    They are the observation (clipped to ±10), its square, the first three powers of time/100, and one.
    """
    clipped = observations.clamp(-OBSERVATION_CLIP, OBSERVATION_CLIP)
    scaled = (time / TIME_SCALE).expand(clipped.shape[:-1]).unsqueeze(-1).to(clipped.dtype)
    return torch.cat([clipped, clipped.square(), scaled, scaled**2, scaled**3, torch.ones_like(scaled)], -1)


@dataclass(frozen=True)
class LinearBaseline:
    """A ridge regression of returns on ``linear_features``, one for each task.

    Shapes: ``weights`` ``[N, F]``.
    """

    weights: Tensor

    @classmethod
    @torch.no_grad()
    def fit(cls, features: Tensor, returns: Tensor, valid: Tensor) -> "LinearBaseline":
        """Fit one baseline to each task's own data; no task sees another's.

        The normal equations are solved in float64: the powers of time make them ill-conditioned.

        Args:
            features: ``[N, E, T, F]``.
            returns: targets ``[N, E, T]``.
            valid: bool ``[N, E, T]``.
        """
        inputs = (features * valid.unsqueeze(-1)).flatten(1, 2).double()
        targets = (returns * valid).flatten(1, 2).unsqueeze(-1).double()
        gram = inputs.mT @ inputs + RIDGE * torch.eye(inputs.shape[-1], dtype=inputs.dtype, device=inputs.device)
        weights = torch.linalg.solve(gram, inputs.mT @ targets).squeeze(-1)
        return cls(weights.to(features.dtype))

    def __call__(self, features: Tensor) -> Tensor:
        """Return values ``[N, ...]`` of features ``[N, ..., F]``."""
        flat = features.flatten(1, -2) @ self.weights.unsqueeze(-1)
        return flat.view(features.shape[:-1])


@torch.no_grad()
def estimate_advantages(rollout: Rollout, observations: Tensor, final: Tensor, discount: float, lam: float) -> Tensor:
    """Return normalised advantages ``[N, E, T]`` of a rollout: baseline, GAE and normalisation, all task by task.

    Args:
        rollout: the episodes.
        observations: network inputs ``[N, E, T, D]``, before each step.
        final: network inputs ``[N, E, D]``, after each episode's last step.
        discount: per step.
        lam: lambda of the generalised advantage estimate.
    """
    steps = torch.arange(rollout.rewards.shape[-1], device=final.device)
    features = linear_features(observations, steps)
    final_features = linear_features(final, rollout.valid.sum(-1))
    returns = discounted_returns(rollout.rewards, rollout.valid, discount)
    baseline = LinearBaseline.fit(features, returns, rollout.valid)
    advantages = generalized_advantages(
        rollout.rewards, baseline(features), baseline(final_features), rollout.terminated, rollout.valid, discount, lam
    )
    return normalize_per_task(advantages, rollout.valid)
