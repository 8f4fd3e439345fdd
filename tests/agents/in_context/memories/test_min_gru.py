"""minGRU against its equations, written out a second time."""

import pytest
import torch
from torch import Tensor

from metarl.agents.in_context.memories.min_gru import MinGru
from tests.agents.in_context.memories.reading import TRIALS, made

pytestmark = pytest.mark.usefixtures("float64_by_default")


def by_hand(network: MinGru, inputs: Tensor) -> Tensor:
    """Read one trial ``[L, D]``, step by step."""
    outputs = network.embed(inputs)
    for block in network.blocks:
        hidden, states = torch.zeros(network.size), []
        for entries in block.before_memory(outputs):  # type: ignore[operator, union-attr]
            gate, candidate = block.project(entries).split(network.size)  # type: ignore[operator, union-attr]
            write = 1 / (1 + torch.exp(-gate))
            hidden = (1 - write) * hidden + write * candidate
            states.append(hidden)
        outputs = outputs + block.merge(torch.stack(states))  # type: ignore[operator, union-attr]
        outputs = outputs + block.perceptron(block.before_perceptron(outputs))  # type: ignore[operator, union-attr]
    return network.norm(outputs)


def test_it_is_its_equations() -> None:
    network, inputs = made("min-gru")
    assert isinstance(network, MinGru)
    outputs, _ = network(inputs, network.initial(TRIALS))
    for trial in range(TRIALS):
        torch.testing.assert_close(outputs[trial], by_hand(network, inputs[trial]), rtol=0, atol=1e-12)


def test_sure_gates_neither_overflow_nor_lose_the_gradient() -> None:
    network, inputs = made("min-gru")
    assert isinstance(network, MinGru)
    free = (1e6 * inputs).float().requires_grad_()
    outputs, _ = network.float()(free, {name: value.float() for name, value in network.initial(TRIALS).items()})
    slopes = torch.autograd.grad(outputs.square().sum(), list(network.parameters()))
    assert outputs.isfinite().all()
    assert all(each.isfinite().all() for each in slopes)
