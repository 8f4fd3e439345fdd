"""The transformer: its window, its positions, and its equations written out a second time."""

import pytest
import torch
from torch import Tensor

from metarl.agents.in_context.memories.memory import MemoryNetwork
from metarl.agents.in_context.memories.transformer import Transformer
from tests.agents.in_context.memories.reading import INPUTS, STEPS, TRIALS, WINDOW, made, read

pytestmark = pytest.mark.usefixtures("float64_by_default")


def test_acting_writes_the_rings_where_they_are() -> None:
    network, inputs = made("transformer")
    memory = network.initial(TRIALS)
    with torch.no_grad():
        _, following = network(inputs[:, :1], memory)
    rings = [key for key in memory if key != "steps"]
    assert len(rings) == 4
    assert all(following[key] is memory[key] for key in rings)


def one_block(window: int = WINDOW) -> Transformer:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return Transformer(INPUTS, 8, layers=1, heads=2, window=window)


def last_output(network: MemoryNetwork, inputs: Tensor) -> Tensor:
    return network(inputs, network.initial(len(inputs)))[0][:, -1]


@pytest.mark.parametrize(
    ("ago", "seen"), [(WINDOW - 2, True), (WINDOW - 1, True), (WINDOW, False), (WINDOW + 1, False)]
)
def test_attention_reaches_back_to_the_windows_end(ago: int, seen: bool) -> None:
    network, (_, inputs) = one_block(), made("gru")
    changed = inputs.clone()
    changed[:, -1 - ago] += 1.0
    difference = (last_output(network, inputs) - last_output(network, changed)).abs().amax(-1)
    assert (difference > 1e-6).all() if seen else (difference == 0).all()


def test_attention_knows_how_long_ago_things_were() -> None:
    network, (_, inputs) = one_block(), made("gru")
    swapped = inputs.clone()
    swapped[:, [-2, -4]] = inputs[:, [-4, -2]]
    assert ((last_output(network, inputs) - last_output(network, swapped)).abs().amax(-1) > 1e-6).all()


@pytest.mark.parametrize("before", [1, 8, 300])
def test_attention_does_not_know_when_in_the_trial_it_is(before: int) -> None:
    # The same window, after another number of steps that it does not reach.
    network, (_, inputs) = one_block(), made("gru")
    window, earlier = inputs[:, -WINDOW:], torch.ones(TRIALS, before, INPUTS)
    longer = torch.cat([earlier, window], 1)
    torch.testing.assert_close(last_output(network, longer), last_output(network, window), rtol=0, atol=1e-9)


def attention_by_hand(network: Transformer, inputs: Tensor) -> Tensor:
    """Read one trial ``[L, D]``, query by query, with positions as complex numbers turned."""
    hidden = network.embed(inputs)
    for block in network.blocks:
        parts = block.project(block.before_attention(hidden)).view(STEPS, 3, 2, 4)  # type: ignore[operator, union-attr]
        rows = []
        for here in range(STEPS):
            heads = []
            for head in range(2):
                first = max(0, here - WINDOW + 1)

                def turned(part: int, position: int) -> Tensor:
                    vector = parts[position, part, head]  # noqa: B023
                    angles = position * torch.tensor([1.0, 0.01])  # 10000^(-2i/4)
                    return torch.complex(vector[:2], vector[2:]) * torch.polar(torch.ones(2), angles)

                likenesses = [
                    (turned(0, here) * turned(1, position).conj()).real.sum() / 2  # the root of 4 entries
                    for position in range(first, here + 1)
                ]
                weights = torch.stack(likenesses).softmax(0)
                heads.append(weights @ parts[first : here + 1, 2, head])
            rows.append(torch.cat(heads))
        hidden = hidden + block.merge(torch.stack(rows))  # type: ignore[operator]
        hidden = hidden + block.perceptron(block.before_perceptron(hidden))  # type: ignore[operator]
    return network.norm(hidden)


def test_a_transformer_is_its_equations() -> None:
    network, inputs = made("transformer of a short window")
    assert isinstance(network, Transformer)
    outputs, _ = network(inputs, network.initial(TRIALS))
    for trial in range(TRIALS):
        torch.testing.assert_close(outputs[trial], attention_by_hand(network, inputs[trial]), rtol=0, atol=1e-12)


@pytest.mark.parametrize("length", [WINDOW - 1, WINDOW, WINDOW + 1, 3 * WINDOW, 3 * WINDOW + 2])
@pytest.mark.parametrize("before", [0, 1, WINDOW, 2 * WINDOW + 1])
def test_pieces_at_the_windows_edges_are_read_as_single_steps(length: int, before: int) -> None:
    network = made("transformer of a short window")[0]
    inputs = torch.randn(TRIALS, before + length, INPUTS, generator=torch.Generator().manual_seed(1))
    memory = read(network, [inputs[:, :before]])[1] if before else network.initial(TRIALS)
    found, _ = network(inputs[:, before:], memory)
    expected, _ = read(network, list(inputs.split(1, 1)))
    torch.testing.assert_close(found, expected[:, before:], rtol=0, atol=1e-12)


def test_no_array_grows_with_the_square_of_the_sequence() -> None:
    # 4,000 steps squared would be 16 million numbers, and the mask of a step by its window 20,000.
    network, largest = one_block(), 0

    class Sizes(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            nonlocal largest
            result = function(*args, **(kwargs or {}))
            tensors = [each for each in torch.utils._pytree.tree_leaves(result) if isinstance(each, Tensor)]
            largest = max(largest, *(each.numel() for each in tensors), 0)
            return result

    with torch.no_grad(), Sizes():
        network(torch.randn(1, 4000, INPUTS), network.initial(1))
    assert largest <= 4000 * 4 * network.size  # the perceptron's units
