"""Compiled recurrences against torch's own layers with the same parameters, in float64."""

from typing import Any
from unittest.mock import patch

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from metarl.agents.in_context.memories import compiled
from metarl.agents.in_context.memories.compiled import CompiledGru, CompiledLstm
from metarl.agents.in_context.memories.recurrence import GruSequence, LstmSequence

pytestmark = pytest.mark.skipif(not compiled.supports(torch.zeros(1), 16), reason="nothing is compiled on this machine")

Drawn = tuple[Tensor, list[Tensor], list[Tensor]]


def drawn(kind: type[nn.Module], trials: int, steps: int, inputs: int, size: int) -> Drawn:
    """Return inputs, states and weights, all of which need gradients."""
    torch.manual_seed(trials + 10 * steps)
    layer = kind(inputs, size, batch_first=True)
    states = torch.randn(1 if kind is nn.GRU else 2, trials, size).unbind()
    entries = torch.randn(trials, steps, inputs)
    return entries.requires_grad_(), [each.requires_grad_() for each in states], list(layer.parameters())


def all_of(function: Any, given: Drawn) -> tuple[Tensor, ...]:
    """Return outputs, and the gradients of a sum of them by everything."""
    entries, states, weights = given
    outputs = function.apply(entries, *states, *weights)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    stream = torch.Generator().manual_seed(7)
    total = sum((each * torch.randn(each.shape, generator=stream).to(each)).sum() for each in outputs)
    assert isinstance(total, Tensor)
    return (*outputs, *torch.autograd.grad(total, [entries, *states, *weights]))


def doubled(given: Drawn) -> Drawn:
    """Return the same numbers in float64."""
    entries, states, weights = given
    one, *others = (each.detach().double().requires_grad_() for each in (entries, *states, *weights))
    return one, others[: len(states)], others[len(states) :]


KINDS = [(nn.GRU, CompiledGru, GruSequence), (nn.LSTM, CompiledLstm, LstmSequence)]


@pytest.mark.parametrize(("kind", "ours", "exact"), KINDS)
@given(st.integers(1, 20), st.integers(1, 20), st.integers(1, 20), st.integers(1, 4))
@settings(deadline=None, max_examples=20)
def test_it_is_the_recurrence_in_float64(
    kind: type[nn.Module], ours: Any, exact: Any, trials: int, steps: int, inputs: int, sixteens: int
) -> None:
    given = drawn(kind, trials, steps, inputs, 16 * sixteens)
    for one, true in zip(all_of(ours, given), all_of(exact, doubled(given)), strict=True):
        assert one.shape == true.shape
        assert (one - true).abs().max() <= 2e-6 * (1 + true.abs().max())


@pytest.mark.parametrize(("kind", "ours", "exact"), KINDS)
def test_threads_share_the_trials(kind: type[nn.Module], ours: Any, exact: Any) -> None:
    given = drawn(kind, 43, 19, 9, 32)
    alone = all_of(ours, given)
    with patch.object(compiled, "SMALL", 0), patch.object(torch, "get_num_threads", lambda: 3):
        shared = all_of(ours, given)
    states = 2 if kind is nn.GRU else 4  # outputs, and the gradient by inputs
    for index, (one, other) in enumerate(zip(alone, shared, strict=True)):
        torch.testing.assert_close(one, other, rtol=0, atol=0 if index < states - 1 else 2e-5)


@pytest.mark.parametrize(("kind", "ours", "exact"), KINDS)
def test_nan_stays_in_its_trial_and_large_numbers_saturate(kind: type[nn.Module], ours: Any, exact: Any) -> None:
    entries, states, weights = drawn(kind, 11, 5, 3, 16)
    with torch.no_grad():
        entries[3, 2] = torch.nan
        entries[4] *= 1e6
        outputs = ours.apply(entries, *states, *weights)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    assert all(each[3, 2:].isnan().all() for each in outputs)
    others = torch.arange(11) != 3
    expected = all_of(exact, doubled((entries.detach().nan_to_num().requires_grad_(), states, weights)))
    for one, true in zip(outputs, expected, strict=False):
        torch.testing.assert_close(one[others].double(), true[others], rtol=1e-5, atol=1e-5)
