"""The trust-region step on one parameter vector: conjugate gradient, then a backtracking line search."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from metarl.devices.transfer import reading_is_free
from metarl.errors import InputError
from metarl.validation import require_counts, require_not_negative, require_positive


@dataclass(frozen=True)
class TrustRegionConfig:
    """Settings of the outer step (Schulman et al. 2015)."""

    max_kl: float = 0.01
    """Largest mean KL divergence between the adapted policies before and after an update, in nats."""
    cg_iterations: int = 10
    """Conjugate gradient iterations, with one curvature product each."""
    cg_damping: float = 1e-5
    """Added to the diagonal of the curvature."""
    backtrack_ratio: float = 0.8
    """Factor by which the line search shrinks the step after each rejected candidate."""
    max_backtracks: int = 15
    """Number of candidates that the line search tries before the update is rejected."""

    def __post_init__(self) -> None:
        require_positive(self, "max_kl")
        require_not_negative(self, "cg_damping")
        require_counts(self, "cg_iterations", "max_backtracks")
        if not 0 < self.backtrack_ratio < 1:
            raise InputError(f"backtrack_ratio must lie between 0 and 1, not {self.backtrack_ratio}")


class Candidate(NamedTuple):
    """The objective (to be maximised) and the mean KL divergence at a candidate of the line search."""

    objective: float
    kl: float


class Step(NamedTuple):
    """Outcome of a trust-region step: the new point ``[P]``, what was measured there, and how often it was shortened.

    A rejected update returns the old point.
    """

    point: Tensor
    candidate: Candidate
    backtracks: int
    accepted: bool


def conjugate_gradient(
    product: Callable[[Tensor], Tensor], target: Tensor, iterations: int, tolerance: float = 1e-10
) -> tuple[Tensor, Tensor]:
    """Solve ``A x = target`` approximately, for a symmetric positive definite A given by its products with vectors.

    Nothing is read from a GPU: there all products are made, and those after the stop change nothing.

    Args:
        product: maps a vector ``[P]`` to ``A @ vector``.
        target: ``[P]``.
        iterations: maximum number of products.
        tolerance: stop when the squared residual falls below this fraction of the squared target.

    Returns:
        x ``[P]`` and the residual ``target - A x`` ``[P]``.
    """
    solution = torch.zeros_like(target)
    residual = target.clone()
    direction = residual.clone()
    squared = residual @ residual
    stop = tolerance * squared
    for _ in range(iterations):
        going = squared > stop
        if reading_is_free(target.device) and not going:
            break
        # The minimum of the quadratic ½ xᵀAx - targetᵀx along the direction.
        image = product(direction)
        step = torch.where(going, squared / (direction @ image), 0.0)
        solution += step * direction
        residual -= step * image
        # The next direction is conjugate to all earlier ones: directionᵀ A previous = 0.
        previous = squared
        squared = residual @ residual
        direction = residual + torch.where(going, squared / previous, 0.0) * direction
    return solution, residual


def trust_region_step(
    point: Tensor,
    gradient: Tensor,
    product: Callable[[Tensor], Tensor],
    evaluate: Callable[[Tensor], Tensor],
    start: float,
    config: TrustRegionConfig,
) -> Step:
    """Take the largest step along the natural gradient that improves the objective inside the trust region.

    Source: Schulman et al. 2015, appendix C. All that is passed in is the same on every process, so all decide alike.

    The line search looks at a candidate before it tries the next. That costs nothing on the CPU. A GPU would idle
    meanwhile, so there it tries 1, 2, 4, ... candidates between two looks: an update that is accepted at once
    waits once and evaluates one candidate; a rejected one waits four times and evaluates fifteen.

    Args:
        point: parameters ``[P]``.
        gradient: of the objective at ``point``, ``[P]``.
        product: curvature of the mean KL times a vector ``[P]``.
        evaluate: the true objective and KL ``[2]`` at a candidate ``[P]``.
        start: the objective at ``point``.
        config: settings.
    """

    def damped(vector: Tensor) -> Tensor:
        return product(vector) + config.cg_damping * vector

    direction, residual = conjugate_gradient(damped, gradient, config.cg_iterations)
    # xᵀAx without another product, as Ax = gradient - residual; this holds for a solution that is not exact, too.
    curvature = direction @ (gradient - residual)
    # KL is about ½ sᵀAs for a step s, so this step is as long as the trust region allows.
    full_step = direction * torch.sqrt(2 * config.max_kl / curvature.clamp(min=1e-12))
    backtracks, together = 0, 1
    while backtracks < config.max_backtracks:
        tries = range(backtracks, min(backtracks + together, config.max_backtracks))
        points = [point + config.backtrack_ratio**number * full_step for number in tries]
        measured = torch.stack([evaluate(shortened) for shortened in points]).tolist()
        for number, shortened, found in zip(tries, points, measured, strict=True):
            candidate = Candidate(*found)
            # Comparisons with NaN are false: a candidate that is not finite is rejected.
            if candidate.objective > start and candidate.kl <= config.max_kl:
                return Step(shortened, candidate, number, True)
        backtracks += len(tries)
        together = 1 if reading_is_free(point.device) else 2 * together
    return Step(point, Candidate(start, 0.0), config.max_backtracks, False)
