"""The external memory: its equations written out a second time, and what it does with its slots."""

import math

import pytest
import torch
from torch import Tensor

from metarl.agents.in_context.memories.external import ExternalMemory
from tests.agents.in_context.memories.reading import INPUTS, TRIALS, made

pytestmark = pytest.mark.usefixtures("float64_by_default")


def slots_by_hand(network: ExternalMemory, inputs: Tensor) -> Tensor:
    """Read one trial ``[L, D]``, slot by slot."""
    slots, hidden, found = [torch.zeros(5) for _ in range(4)], torch.zeros(6), torch.zeros(5)
    read, usage, outputs = [0.0] * 4, [0.0] * 4, []
    for entries in inputs:
        hidden = network.controller(torch.cat([entries, found]), hidden)
        scalars = network.interface(hidden)
        key, vector = scalars[:5], scalars[5:10].tanh()
        gate, sharpness = torch.sigmoid(scalars[10]).item(), 1 + math.log1p(math.exp(scalars[11].item()))
        cosines = [float(slot @ key / ((slot @ slot) * (key @ key) + 1e-6).sqrt()) for slot in slots]
        total = sum(math.exp(sharpness * cosine) for cosine in cosines)
        reading = [math.exp(sharpness * cosine) / total for cosine in cosines]
        found = torch.stack([weight * slot for weight, slot in zip(reading, slots, strict=True)]).sum(0)
        least = usage.index(min(usage))
        slots[least] = torch.zeros(5)
        writing = [gate * last + (1 - gate) * (slot == least) for slot, last in enumerate(read)]
        slots = [slot + weight * vector for slot, weight in zip(slots, writing, strict=True)]
        usage = [0.95 * u + r + w for u, r, w in zip(usage, reading, writing, strict=True)]
        read = reading
        outputs.append(torch.cat([hidden, found]))
    return torch.stack(outputs)


@torch.no_grad()
def test_an_external_memory_is_its_equations() -> None:
    network, inputs = made("external")
    assert isinstance(network, ExternalMemory)
    outputs, _ = network(inputs, network.initial(TRIALS))
    for trial in range(TRIALS):
        torch.testing.assert_close(outputs[trial], slots_by_hand(network, inputs[trial]), rtol=0, atol=1e-12)


def test_slots_are_filled_one_after_the_other() -> None:
    network, inputs = made("external")
    assert isinstance(network, ExternalMemory)
    with torch.no_grad():
        network.interface.bias[-2] = -50.0  # the gate: nothing goes to where was read
    memory = network.initial(TRIALS)
    for step in range(4):
        _, memory = network(inputs[:, step : step + 1], memory)
        filled = memory["slots"].abs().sum(-1) > 1e-9
        assert filled.int().tolist() == [[1] * (step + 1) + [0] * (3 - step)] * TRIALS


@torch.no_grad()
def test_what_was_written_is_found_by_a_key_that_resembles_it() -> None:
    network, _ = made("external")
    assert isinstance(network, ExternalMemory)
    memory = network.initial(1)
    memory["slots"][0] = torch.eye(4, 5)
    network.interface.weight.zero_()
    network.interface.bias.copy_(torch.tensor([0, 0, 3.0, 0, 0, 0, 0, 0, 0, 0, 0, 40.0]))
    _, memory = network(torch.zeros(1, 1, INPUTS), memory)
    torch.testing.assert_close(memory["read"], torch.tensor([[0, 0, 1.0, 0]]), rtol=0, atol=1e-9)
    torch.testing.assert_close(memory["found"], torch.tensor([[0, 0, 1.0, 0, 0]]), rtol=0, atol=1e-9)
