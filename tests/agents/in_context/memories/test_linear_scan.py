"""The scan against its recurrence, step by step."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from metarl.agents.in_context.memories.linear_scan import LinearScan, scan

LENGTHS = st.one_of(st.integers(1, 40), st.sampled_from([63, 64, 65, 100, 101]))


def by_steps(factors: Tensor, terms: Tensor, before: Tensor) -> Tensor:
    found = []
    for factor, term in zip(factors.unbind(1), terms.unbind(1), strict=True):
        before = factor * before + term
        found.append(before)
    return torch.stack(found, 1)


def drawn(length: int, seed: int, lowest: float) -> list[Tensor]:
    """Return factors in [lowest, 1], terms, and what is before them."""
    stream = torch.Generator().manual_seed(seed)
    factors = lowest + (1 - lowest) * torch.rand(3, length, 4, generator=stream, dtype=torch.float64)
    terms = torch.randn(3, length, 4, generator=stream, dtype=torch.float64)
    return [factors, terms, torch.randn(3, 4, generator=stream, dtype=torch.float64)]


@given(LENGTHS, st.integers(0, 100), st.sampled_from([-1.0, 0.0, 0.99]))
@settings(deadline=None, max_examples=40)
def test_it_is_its_recurrence_with_its_gradients(length: int, seed: int, lowest: float) -> None:
    arguments = [each.requires_grad_() for each in drawn(length, seed, lowest)]
    found, expected = LinearScan.apply(*arguments), by_steps(*arguments)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-11)
    weights = torch.linspace(-1, 1, found.numel(), dtype=torch.float64).view_as(found)
    slopes = (torch.autograd.grad((each * weights).sum(), arguments) for each in (found, expected))
    for one, other in zip(*slopes, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)


@given(LENGTHS, st.integers(0, 100))
@settings(deadline=None, max_examples=20)
def test_a_factor_of_zero_forgets_exactly(length: int, seed: int) -> None:
    factors, terms, before = drawn(length, seed, 0.0)
    step = seed % length
    factors[:, step] = 0
    found = scan(factors, terms, before)
    assert torch.equal(found[:, step], terms[:, step])
    assert torch.equal(found[:, step:], scan(factors, terms, before + 1e6)[:, step:])


def test_a_factor_of_one_remembers_over_a_long_trial_and_a_small_one_underflows_to_nothing() -> None:
    zeros, ones = torch.zeros(1, 4000, 1), torch.ones(1, 4000, 1)
    given_before = torch.full((1, 1), 3.0)
    assert (scan(ones, zeros, given_before) == 3).all()
    found = scan(1e-20 * ones, ones, given_before)
    assert torch.equal(found, ones)
    free = (1e-20 * ones).requires_grad_()
    (slope,) = torch.autograd.grad(LinearScan.apply(free, ones, given_before).sum(), free)
    assert slope.isfinite().all()
