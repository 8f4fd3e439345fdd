import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from metarl.learning.trust_region import Candidate, Step, TrustRegionConfig, conjugate_gradient, trust_region_step

CURVATURE = torch.diag(torch.tensor([1.0, 4.0]))
CONFIG = TrustRegionConfig(max_kl=0.01)


def quadratic_step(config: TrustRegionConfig, slope: Tensor, bend: float = 0.0, hidden_kl: float = 1.0) -> Step:
    """Maximise ``slope · x - bend |x|²`` from the origin, where KL is ``hidden_kl`` times ½ xᵀ C x."""

    def evaluate(x: Tensor) -> Tensor:
        return torch.stack([slope @ x - bend * x @ x, hidden_kl * (0.5 * x @ CURVATURE @ x)])

    return trust_region_step(torch.zeros(2), slope, lambda v: CURVATURE @ v, evaluate, 0.0, config)


@given(st.integers(1, 6), st.integers(0, 1000))
@settings(deadline=None, max_examples=30)
def test_conjugate_gradient_solves_what_linalg_solves(size: int, seed: int) -> None:
    stream = torch.Generator().manual_seed(seed)
    root = torch.randn(size, size, generator=stream, dtype=torch.float64)
    matrix = root @ root.T + torch.eye(size, dtype=torch.float64)
    target = torch.randn(size, generator=stream, dtype=torch.float64)
    found, _ = conjugate_gradient(lambda v: matrix @ v, target, iterations=2 * size + 5, tolerance=1e-20)
    torch.testing.assert_close(found, torch.linalg.solve(matrix, target), rtol=1e-6, atol=1e-8)


def test_conjugate_gradient_of_nothing_is_nothing() -> None:
    solution, residual = conjugate_gradient(lambda v: CURVATURE @ v, torch.zeros(2), 10)
    assert solution.tolist() == [0.0, 0.0]
    assert residual.tolist() == [0.0, 0.0]


@pytest.mark.parametrize("iterations", [0, 1, 2])
def test_conjugate_gradient_returns_the_residual_of_its_solution(iterations: int) -> None:
    target = torch.tensor([1.0, 1.0])
    solution, residual = conjugate_gradient(lambda v: CURVATURE @ v, target, iterations)
    torch.testing.assert_close(residual, target - CURVATURE @ solution)


def test_a_solve_that_was_cut_short_still_reaches_the_edge_of_the_trust_region() -> None:
    # After one iteration the direction is g · 2/5, no solution of C x = g; its length must be measured in C all the
    # same: xᵀCx = 4/25 · 5 = 0.8, so x · √(2 · 0.01 / 0.8).
    step = quadratic_step(TrustRegionConfig(cg_iterations=1), torch.tensor([1.0, 1.0]), hidden_kl=0.999)
    torch.testing.assert_close(step.point, torch.full((2,), 0.4 * math.sqrt(0.02 / 0.8)), rtol=1e-4, atol=0)


def test_conjugate_gradient_stops_when_it_has_the_solution() -> None:
    # Two eigenvalues: two products suffice, and a third would divide by a residual of (almost) nothing.
    products = []

    def product(vector: Tensor) -> Tensor:
        products.append(vector)
        return CURVATURE @ vector

    found, _ = conjugate_gradient(product, torch.tensor([1.0, 1.0]), 10)
    torch.testing.assert_close(found, torch.tensor([1.0, 0.25]))
    assert len(products) == 2


def test_conjugate_gradient_makes_no_more_products_than_it_may() -> None:
    products = []
    conjugate_gradient(lambda v: (products.append(v), CURVATURE @ v)[1], torch.tensor([1.0, 1.0]), 1)
    assert len(products) == 1


def test_conjugate_gradient_leaves_its_target_alone() -> None:
    target = torch.tensor([1.0, 1.0])
    conjugate_gradient(lambda v: CURVATURE @ v, target, 10)
    assert target.tolist() == [1.0, 1.0]


def test_the_full_step_reaches_the_edge_of_the_trust_region() -> None:
    # Natural gradient C⁻¹ g = (1, ¼), of length gᵀ C⁻¹ g = 1.25 in C's metric; scaled by √(2 · 0.01 / 1.25).
    # KL there is 0.01 but for rounding and damping, so a KL reported as slightly less accepts the first candidate.
    step = quadratic_step(CONFIG, torch.tensor([1.0, 1.0]), hidden_kl=0.999)
    expected = torch.tensor([1.0, 0.25]) * math.sqrt(0.02 / 1.25)
    torch.testing.assert_close(step.point, expected, rtol=1e-4, atol=0)
    assert step.backtracks == 0


def test_an_accepted_step_improves_inside_the_trust_region() -> None:
    step = quadratic_step(CONFIG, torch.tensor([1.0, 1.0]), bend=1.0)
    assert step.accepted
    assert step.candidate.objective > 0
    assert step.candidate.kl <= CONFIG.max_kl


def test_a_larger_kl_than_foretold_shortens_the_step() -> None:
    # KL is twice its quadratic model: 2 · 0.01 · 0.8^(2k) ≤ 0.01 first at k = 2 (0.8⁴ = 0.41).
    step = quadratic_step(CONFIG, torch.tensor([1.0, 1.0]), hidden_kl=2.0)
    assert step.backtracks == 2
    assert step.candidate.kl == pytest.approx(2 * 0.01 * 0.8**4, rel=1e-3)


def test_an_objective_that_bends_down_shortens_the_step() -> None:
    # Full step s: gᵀs = √(2 · 0.01 · 1.25) = 0.158, |s|² = 1.0625 · 0.02/1.25 = 0.017. At bend 15 the gain
    # 0.158 c - 0.255 c² turns positive at c < 0.62: 0.8³ = 0.51 is the first.
    assert quadratic_step(CONFIG, torch.tensor([1.0, 1.0]), bend=15.0).backtracks == 3


def test_an_objective_that_never_improves_gives_the_old_point_back() -> None:
    point = torch.tensor([1.0, 2.0])
    step = trust_region_step(point, torch.ones(2), lambda v: v, lambda x: torch.tensor([5.0, 0.0]), 5.0, CONFIG)
    assert torch.equal(step.point, point)
    assert not step.accepted


def test_a_step_given_up_reports_the_old_objective_and_all_candidates() -> None:
    step = trust_region_step(torch.zeros(2), torch.ones(2), lambda v: v, lambda x: torch.zeros(2), 5.0, CONFIG)
    assert step.candidate == Candidate(5.0, 0.0)
    assert step.backtracks == CONFIG.max_backtracks


def test_a_step_out_of_the_trust_region_is_never_taken() -> None:
    too_far = torch.tensor([9.0, 0.02])
    step = trust_region_step(torch.zeros(2), torch.ones(2), lambda v: v, lambda x: too_far, 0.0, CONFIG)
    assert not step.accepted


@pytest.mark.parametrize("candidate", [Candidate(math.nan, 0.0), Candidate(9.0, math.nan)])
def test_nan_candidates_are_rejected(candidate: Candidate) -> None:
    found = torch.tensor(candidate)
    step = trust_region_step(torch.zeros(2), torch.ones(2), lambda v: v, lambda x: found, 0.0, CONFIG)
    assert not step.accepted


def test_no_gradient_means_no_step_and_no_nan() -> None:
    assert quadratic_step(CONFIG, torch.zeros(2)).point.tolist() == [0.0, 0.0]


def test_a_larger_trust_region_allows_a_larger_step() -> None:
    # Four times the KL, twice the way.
    slope = torch.tensor([1.0, 1.0])
    small, large = (quadratic_step(TrustRegionConfig(max_kl=kl), slope, hidden_kl=0.9) for kl in (0.01, 0.04))
    torch.testing.assert_close(large.point, 2 * small.point)


def test_damping_shortens_the_natural_gradient_in_flat_directions() -> None:
    # With damping 1 the direction is (1/2, 1/5) instead of (1, 1/4): flatter directions lose more.
    step = quadratic_step(TrustRegionConfig(cg_damping=1.0), torch.tensor([1.0, 1.0]))
    torch.testing.assert_close(step.point[1] / step.point[0], torch.tensor(0.4))
