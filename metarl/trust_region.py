"""The trust-region step on one parameter vector: conjugate gradient, then a backtracking line search."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from metarl.errors import InputError
from metarl.validation import require_counts, require_not_negative, require_positive


@dataclass(frozen=True)
class TrustRegionConfig:
    """Settings of the outer step (Schulman et al. 2015)."""

    max_kl: float = 0.01
    """Largest mean KL divergence between the adapted policies before and after an update, in nats."""
    cg_iterations: int = 10
    """Conjugate-gradient iterations, each one curvature product."""
    cg_damping: float = 1e-5
    """Added to the diagonal of the curvature."""
    backtrack_ratio: float = 0.8
    """Factor by which the line search shortens the step after each refused trial."""
    max_backtracks: int = 15
    """Trials of the line search before the update is given up."""

    def __post_init__(self) -> None:
        require_positive(self, "max_kl")
        require_not_negative(self, "cg_damping")
        require_counts(self, "cg_iterations", "max_backtracks")
        if not 0 < self.backtrack_ratio < 1:
            raise InputError(f"backtrack_ratio must lie between 0 and 1, not {self.backtrack_ratio}")


class Trial(NamedTuple):
    """Value of the objective (to be maximised) and mean KL at a trial point; both scalars."""

    objective: float
    kl: float


class Step(NamedTuple):
    """Outcome of a trust-region step: the new point ``[P]``, its trial, and the trials that were refused before it.

    An update that was given up returns the old point.
    """

    point: Tensor
    trial: Trial
    backtracks: int
    accepted: bool


def conjugate_gradient(
    product: Callable[[Tensor], Tensor], target: Tensor, iterations: int, tolerance: float = 1e-10
) -> tuple[Tensor, Tensor]:
    """Solve ``A x = target`` approximately for a symmetric positive definite A known by its products.

    Args:
        product: maps a vector ``[P]`` to ``A @ vector``.
        target: ``[P]``.
        iterations: at most so many products.
        tolerance: stop when the squared residual falls below this fraction of the squared target.

    Returns:
        x ``[P]`` and the residual ``target - A x`` ``[P]``.
    """
    solution, residual = torch.zeros_like(target), target.clone()
    direction, squared = residual.clone(), residual @ residual
    stop = tolerance * squared
    for _ in range(iterations):
        if squared <= stop:
            break
        image = product(direction)
        step = squared / (direction @ image)
        solution += step * direction
        residual -= step * image
        previous, squared = squared, residual @ residual
        direction = residual + (squared / previous) * direction
    return solution, residual


def trust_region_step(
    point: Tensor,
    gradient: Tensor,
    product: Callable[[Tensor], Tensor],
    evaluate: Callable[[Tensor], Trial],
    start: float,
    config: TrustRegionConfig,
) -> Step:
    """Take the largest step along the natural gradient that improves the objective inside the trust region.

    Args:
        point: parameters ``[P]``.
        gradient: of the objective at ``point``, ``[P]``.
        product: curvature of the mean KL times a vector ``[P]``.
        evaluate: the true objective and KL at a trial point ``[P]``.
        start: the objective at ``point``.
        config: settings.
    """

    def damped(vector: Tensor) -> Tensor:
        return product(vector) + config.cg_damping * vector

    direction, residual = conjugate_gradient(damped, gradient, config.cg_iterations)
    curvature = direction @ (gradient - residual)
    full_step = direction * torch.sqrt(2 * config.max_kl / curvature.clamp(min=1e-12))
    for backtracks in range(config.max_backtracks):
        candidate = point + config.backtrack_ratio**backtracks * full_step
        trial = evaluate(candidate)
        if trial.objective > start and trial.kl <= config.max_kl:
            return Step(candidate, trial, backtracks, True)
    return Step(point, Trial(start, 0.0), config.max_backtracks, False)
