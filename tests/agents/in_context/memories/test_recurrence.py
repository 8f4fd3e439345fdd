"""Recurrences against torch's own layers with the same parameters."""

from typing import Any
from unittest.mock import patch

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from metarl.agents.in_context.memories import recurrence
from metarl.agents.in_context.memories.recurrence import GruSequence, LstmSequence


def drawn(kind: type[nn.Module], trials: int, steps: int, inputs: int, size: int, dtype: torch.dtype) -> list[Any]:
    """Return torch's layer, inputs that need gradients, and as many states."""
    torch.manual_seed(trials + 10 * steps)
    layer = kind(inputs, size, batch_first=True, dtype=dtype)
    tensors = [torch.randn(trials, steps, inputs), *torch.randn(2, trials, size)]
    return [layer, *(each.to(dtype).requires_grad_() for each in tensors)]


def slopes(outputs: tuple[Tensor, ...], by: list[Tensor]) -> tuple[Tensor, ...]:
    """Return gradients of the sum of all outputs, each number weighted differently."""
    stream = torch.Generator().manual_seed(7)
    total = sum((each * torch.randn(each.shape, generator=stream).to(each)).sum() for each in outputs)
    assert isinstance(total, Tensor)
    return torch.autograd.grad(total, by)


sizes = given(*[st.integers(1, most) for most in (5, 9, 4, 7)])


@given(*[st.integers(1, most) for most in (5, 9, 4, 7)], st.sampled_from([1, 100, recurrence.CHUNK]))
@settings(deadline=None, max_examples=20)
def test_gru_is_torchs(trials: int, steps: int, inputs: int, size: int, chunk: int) -> None:
    layer, entries, hidden, _ = drawn(nn.GRU, trials, steps, inputs, size, torch.float64)
    weights = list(layer.parameters())
    expected = layer(entries, hidden.unsqueeze(0))[0]
    found = GruSequence.apply(entries, hidden, *weights)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    by = [entries, hidden, *weights]
    with patch.object(recurrence, "CHUNK", chunk):
        changes = slopes((found,), by)
    for one, other in zip(changes, slopes((expected,), by), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def lstm_by_cells(entries: Tensor, hidden: Tensor, cell: Tensor, weights: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Return units and cells after every step."""
    units, cells = [], []
    for step in entries.unbind(1):
        hidden, cell = torch.lstm_cell(step, (hidden, cell), *weights)
        units.append(hidden)
        cells.append(cell)
    return torch.stack(units, 1), torch.stack(cells, 1)


@sizes
@settings(deadline=None, max_examples=20)
def test_lstm_is_torchs(trials: int, steps: int, inputs: int, size: int) -> None:
    layer, entries, hidden, cell = drawn(nn.LSTM, trials, steps, inputs, size, torch.float64)
    weights = list(layer.parameters())
    expected = lstm_by_cells(entries, hidden, cell, weights)
    found = LstmSequence.apply(entries, hidden, cell, *weights)
    by = [entries, hidden, cell, *weights]
    for one, other in zip((*found, *slopes(found, by)), (*expected, *slopes(expected, by)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("steps", [60, 400])
def test_in_float32_it_is_as_exact_as_torchs_gru(steps: int) -> None:
    layer, entries, hidden, _ = drawn(nn.GRU, 8, steps, 9, 32, torch.float32)
    weights = list(layer.parameters())
    by = [entries, hidden, *weights]
    exact = nn.GRU(9, 32, batch_first=True, dtype=torch.float64)
    exact.load_state_dict(layer.state_dict())
    doubles = [each.detach().double().requires_grad_() for each in (entries, hidden)]
    truth = slopes((exact(doubles[0], doubles[1].unsqueeze(0))[0],), [*doubles, *exact.parameters()])
    torchs = slopes((layer(entries, hidden.unsqueeze(0))[0],), by)
    ours = slopes((GruSequence.apply(entries, hidden, *weights),), by)
    for one, other, true in zip(ours, torchs, truth, strict=True):
        allowed = 3 * (other - true).abs().max() + 1e-6 * true.abs().max()
        assert (one - true).abs().max() <= allowed
