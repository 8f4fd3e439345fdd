"""Compiled MLPs against those in torch with the same parameters, in float64."""

from itertools import pairwise
from unittest.mock import patch

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tensordict import TensorDict
from torch import Tensor

from metarl.networks import compiled_mlp
from metarl.networks.activations import tanh
from metarl.networks.compiled_mlp import changes_of_outputs_only
from metarl.networks.mlp import mlp

ONE = torch.zeros(1, 1, 1)
pytestmark = pytest.mark.skipif(not compiled_mlp.supports(ONE, ONE), reason="nothing is compiled on this machine")

Drawn = tuple[Tensor, list[Tensor]]


def drawn(networks: int, rows: int, sizes: list[int], shared: bool = False) -> Drawn:
    """Return inputs ``[N, B, D]``, and weights and biases ``[N, ...]``, or ``[1, ...]`` if they are shared."""
    stream = torch.Generator().manual_seed(rows)
    count = 1 if shared else networks
    shapes = [shape for one, other in pairwise(sizes) for shape in ((count, one, other), (count, other))]
    parameters = [torch.randn(shape, generator=stream) / shape[-2] ** 0.5 for shape in shapes]
    return torch.randn(networks, rows, sizes[0], generator=stream), parameters


def outputs_of(inputs: Tensor, parameters: list[Tensor]) -> Tensor:
    """Evaluate networks whose parameters are ``[N, ...]``."""
    names = [f"{kind}_{index}" for index in range(len(parameters) // 2) for kind in ("weight", "bias")]
    return mlp(TensorDict(dict(zip(names, parameters, strict=True)), [len(inputs)]), inputs, tanh)


def all_of(inputs: Tensor, parameters: list[Tensor]) -> list[Tensor]:
    """Return what MAML-TRPO needs: outputs before and after a gradient step, and products with both Jacobians."""
    leaves = [value.detach().requires_grad_() for value in parameters]
    stacked = [value.expand(len(inputs), *value.shape[1:]) for value in leaves]
    outputs = outputs_of(inputs, stacked)
    weights = torch.linspace(-1, 1, outputs.numel(), dtype=inputs.dtype).view_as(outputs)
    gradients = torch.autograd.grad((weights * outputs.square()).mean(), stacked, create_graph=True)
    moved = outputs_of(inputs, [value + 0.3 * slope for value, slope in zip(stacked, gradients, strict=True)])
    cotangent = torch.zeros_like(moved, requires_grad=True)
    pullback = torch.autograd.grad(moved, leaves, cotangent, create_graph=True)
    tangents = [torch.linspace(1, -2, value.numel(), dtype=inputs.dtype).view_as(value) for value in leaves]
    with changes_of_outputs_only():
        (pushed,) = torch.autograd.grad(pullback, cotangent, tangents, retain_graph=True)
    # Positive weights: rows of both signs would cancel, and leave little but what float32 rounds off each of them.
    pulled = torch.autograd.grad(moved, leaves, weights + 1)
    return [outputs, *gradients, moved, pushed, *pulled]


@given(st.integers(1, 3), st.integers(1, 70), st.lists(st.integers(1, 35), min_size=2, max_size=4), st.booleans())
@settings(deadline=None, max_examples=30)
def test_it_is_the_network_in_float64(networks: int, rows: int, sizes: list[int], shared: bool) -> None:
    inputs, parameters = drawn(networks, rows, sizes, shared)
    exact = all_of(inputs.double(), [value.double() for value in parameters])
    for one, true in zip(all_of(inputs, parameters), exact, strict=True):
        assert one.shape == true.shape
        assert (one - true).abs().max() <= 1e-5 * (1 + true.abs().max())


def test_threads_do_not_change_a_bit() -> None:
    inputs, parameters = drawn(7, 40, [5, 16, 16, 3])
    alone = all_of(inputs, parameters)
    with patch.object(compiled_mlp, "SMALL", 0), patch.object(torch, "get_num_threads", lambda: 3):
        shared = all_of(inputs, parameters)
    assert all(torch.equal(one, other) for one, other in zip(alone, shared, strict=True))


def test_a_row_does_not_depend_on_the_others() -> None:
    inputs, parameters = drawn(2, 75, [3, 20, 20, 2])
    whole = outputs_of(inputs, parameters)
    for first in (0, 13, 74):
        assert torch.equal(outputs_of(inputs[:, first:], parameters), whole[:, first:])


def test_nan_stays_in_its_row_and_large_numbers_saturate() -> None:
    inputs, parameters = drawn(1, 9, [2, 16, 1])
    inputs[0, 3], inputs[0, 4] = torch.nan, 1e30
    outputs = outputs_of(inputs, parameters)
    assert outputs.isnan().flatten().nonzero().tolist() == [[3]]
    assert outputs[0, 4].abs() <= 16 * parameters[2].abs().max() + parameters[3].abs()


def test_what_it_does_not_do_is_left_to_torch() -> None:
    assert not compiled_mlp.supports(ONE.double(), ONE.double())
    assert not compiled_mlp.supports(ONE.clone().requires_grad_(), ONE)
    assert not compiled_mlp.supports(ONE, torch.zeros(1, 2, 1))


def test_derivatives_that_are_not_computed_are_not_numbers() -> None:
    inputs, parameters = drawn(1, 4, [2, 3, 1])
    leaves = [value.requires_grad_() for value in parameters]

    def second() -> tuple[Tensor, ...]:
        slopes = torch.autograd.grad(outputs_of(inputs, leaves).square().sum(), leaves, create_graph=True)
        return torch.autograd.grad(slopes[0].sum(), leaves, create_graph=True)

    third = torch.autograd.grad(second()[0].sum(), leaves)
    assert all(value.isnan().all() for value in third)
    with changes_of_outputs_only():
        assert all(value.isnan().all() for value in second())
