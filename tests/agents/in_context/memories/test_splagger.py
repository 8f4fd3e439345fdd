import pytest
import torch

from metarl.agents.in_context.memories.memory import MemoryConfig
from metarl.agents.in_context.memories.splagger import SplAgger
from metarl.errors import InputError
from tests.agents.in_context.memories.reading import made, read


def test_half_of_the_outputs_are_the_largest_so_far_and_at_least_0() -> None:
    network, inputs = made("splagger")
    assert isinstance(network, SplAgger)
    hidden, _ = network.units(inputs, network.units.initial(len(inputs)))
    present, own = network.outputs(hidden).chunk(2, -1)
    most, rows = torch.zeros_like(own[:, 0]), []
    for step in own.unbind(1):
        most = torch.maximum(most, step)
        rows.append(most)
    torch.testing.assert_close(read(network, [inputs])[0], torch.cat([present, torch.stack(rows, 1)], -1))
    assert (own.amax(1) < 0).any()  # so that the start counts


def test_an_odd_size_is_refused() -> None:
    with pytest.raises(InputError, match=r"memory splagger's size .* must be a multiple of 2, not 7"):
        MemoryConfig(memory="splagger").check_memory(7)
