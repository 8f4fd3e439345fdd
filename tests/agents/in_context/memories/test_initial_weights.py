"""Initial weights of recurrent memories."""

import pytest
import torch
from torch import nn

from metarl.agents.in_context.memories.initial_weights import make_orthogonal
from metarl.agents.in_context.memories.memory import MemoryConfig, make_memory

INPUTS, UNITS = 5, 7


@pytest.mark.parametrize(("kind", "gates"), [(nn.GRU, 3), (nn.LSTM, 4)])
def test_each_gate_keeps_lengths_and_biases_are_zero(kind: type[nn.RNNBase], gates: int) -> None:
    """The recurrent weights of a gate are an orthogonal matrix; those of the inputs are in Xavier's range."""
    network = kind(INPUTS, UNITS)
    make_orthogonal(network)
    between = network.weight_hh_l0.view(gates, UNITS, UNITS)
    torch.testing.assert_close(between @ between.mT, torch.eye(UNITS).expand(gates, -1, -1))
    assert not torch.equal(between[0], between[1])
    largest = (6 / (INPUTS + UNITS)) ** 0.5
    # One matrix of all gates would have a smaller range.
    assert 0.8 * largest < network.weight_ih_l0.abs().max() <= largest
    assert not network.bias_hh_l0.any()
    assert not network.bias_ih_l0.any()


@pytest.mark.parametrize("memory", ["gru", "lstm", "splagger"])
@pytest.mark.parametrize("orthogonal", [False, True])
def test_memories_start_with_them_where_asked(memory: str, orthogonal: bool) -> None:
    """The setting reaches the memories that have such weights."""
    network = make_memory(MemoryConfig(memory=memory, orthogonal=orthogonal), INPUTS, 6)
    (recurrent,) = (module for module in network.modules() if isinstance(module, nn.RNNBase))
    gate = recurrent.weight_hh_l0[:6]
    assert torch.allclose(gate @ gate.T, torch.eye(6), atol=1e-6) == orthogonal
