"""All memories: what they must have in common, and each against its equations written out a second time."""

import math
from collections.abc import Callable, Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from metarl.agents.in_context.memories.external import ExternalMemory
from metarl.agents.in_context.memories.memory import Gru, Memory, MemoryNetwork
from metarl.agents.in_context.memories.transformer import Transformer

TRIALS, STEPS, INPUTS = 4, 17, 3
WINDOW = 5
MEMORIES: dict[str, Callable[[], MemoryNetwork]] = {
    "gru": lambda: Gru(INPUTS, 6),
    "transformer": lambda: Transformer(INPUTS, 8, layers=2, heads=2, window=64),
    "transformer of a short window": lambda: Transformer(INPUTS, 8, layers=2, heads=2, window=WINDOW),
    "external": lambda: ExternalMemory(INPUTS, 6, slots=4, width=5),
}
every_memory = pytest.mark.parametrize("name", MEMORIES)
CUTS = st.lists(st.integers(1, STEPS - 1), max_size=6, unique=True).map(sorted)
LENGTHS = st.lists(st.integers(1, STEPS), min_size=TRIALS, max_size=TRIALS)


@pytest.fixture(autouse=True)
def _float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def made(name: str, seed: int = 0) -> tuple[MemoryNetwork, Tensor]:
    """Return a network and the inputs of some trials, all in float64."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return MEMORIES[name](), torch.randn(TRIALS, STEPS, INPUTS)


def read(network: MemoryNetwork, pieces: list[Tensor], memory: Memory | None = None) -> tuple[Tensor, Memory]:
    """Read pieces of trials one after the other."""
    memory, outputs = network.initial(len(pieces[0])) if memory is None else memory, []
    for piece in pieces:
        found, memory = network(piece, memory)
        outputs.append(found)
    return torch.cat(outputs, 1), memory


def cloned(memory: Memory) -> Memory:
    return {name: value.clone() for name, value in memory.items()}


def assert_same(one: Memory, other: Memory) -> None:
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=0, atol=1e-12)


def cut_at(inputs: Tensor, cuts: list[int]) -> list[Tensor]:
    return list(inputs.tensor_split(cuts, 1))


@pytest.mark.parametrize("gradients", [False, True])
@every_memory
def test_one_step_at_a_time_is_the_whole_trial_at_once(name: str, gradients: bool) -> None:
    network, inputs = made(name)
    with torch.set_grad_enabled(gradients):
        expected, last = network(inputs, network.initial(TRIALS))
        found, memory = read(network, list(inputs.split(1, 1)))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    assert_same(memory, last)


@every_memory
@given(CUTS, st.booleans(), st.integers(0, 100))
@settings(deadline=None, max_examples=12)
def test_any_cuts_give_the_same_numbers(name: str, cuts: list[int], gradients: bool, seed: int) -> None:
    network, inputs = made(name, seed)
    with torch.set_grad_enabled(gradients):
        expected, last = network(inputs, network.initial(TRIALS))
        found, memory = read(network, cut_at(inputs, cuts))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    assert_same(memory, last)


@every_memory
@given(LENGTHS, LENGTHS, st.booleans(), st.integers(0, 100))
@settings(deadline=None, max_examples=12)
def test_trials_of_unequal_lengths_are_read_as_if_each_was_alone(
    name: str, lengths: list[int], following: list[int], gradients: bool, seed: int
) -> None:
    # Twice, so that the second reading begins at unequal places.
    (network, inputs), (_, more) = made(name, seed), made(name, seed + 1)
    with torch.set_grad_enabled(gradients):
        first, memory = network(inputs, network.initial(TRIALS), torch.tensor(lengths))
        second, memory = network(more, memory, torch.tensor(following))
    for trial, (length, rest) in enumerate(zip(lengths, following, strict=True)):
        pieces = [inputs[trial : trial + 1, :length], more[trial : trial + 1, :rest]]
        alone, last = read(network, [torch.cat(pieces, 1)])
        torch.testing.assert_close(first[trial, :length], alone[0, :length], rtol=0, atol=1e-12)
        torch.testing.assert_close(second[trial, :rest], alone[0, length:], rtol=0, atol=1e-12)
        assert_same({key: value[trial : trial + 1] for key, value in memory.items()}, last)


@every_memory
def test_the_gradient_runs_through_the_whole_trial(name: str) -> None:
    # Read in pieces, with the memory between them, it is the same: by every parameter and by every input.
    network, inputs = made(name)
    weights = torch.randn(TRIALS, STEPS, network.size, generator=torch.Generator().manual_seed(1))

    def slopes(pieces: int) -> tuple[Tensor, ...]:
        free = inputs.clone().requires_grad_()
        outputs, _ = read(network, list(free.tensor_split(pieces, 1)))
        return torch.autograd.grad((outputs * weights).sum(), [free, *network.parameters()])

    for one, other in zip(slopes(1), slopes(4), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


@every_memory
def test_no_step_sees_what_comes_after_it(name: str) -> None:
    network, inputs = made(name)
    changed = inputs.clone()
    changed[:, 9] += 1.0
    one, other = (network(each, network.initial(TRIALS))[0] for each in (inputs, changed))
    assert torch.equal(one[:, :9], other[:, :9])
    assert (one[:, 9:12] != other[:, 9:12]).any(-1).all()


@every_memory
def test_trials_know_nothing_of_each_other(name: str) -> None:
    network, inputs = made(name)
    changed = inputs.clone()
    changed[1] += 1.0
    one, other = (network(each, network.initial(TRIALS))[0] for each in (inputs, changed))
    kept = torch.tensor([0, 2, 3])
    torch.testing.assert_close(one[kept], other[kept], rtol=0, atol=1e-13)
    assert (one[1] != other[1]).all(0).any()


@every_memory
def test_a_memory_has_an_axis_of_trials_and_keeps_its_shape(name: str) -> None:
    network, inputs = made(name)
    memory = network.initial(TRIALS)
    shapes = {key: (value.shape, value.dtype) for key, value in memory.items()}
    assert all(shape[0] == TRIALS for shape, _ in shapes.values())
    outputs, memory = network(inputs, memory)
    assert outputs.shape == (TRIALS, STEPS, network.size)
    assert {key: (value.shape, value.dtype) for key, value in memory.items()} == shapes


@every_memory
def test_the_given_memory_stays_but_for_a_single_step_without_gradients(name: str) -> None:
    network, inputs = made(name)
    _, memory = network(inputs, network.initial(TRIALS))
    before = cloned(memory)
    for piece, gradients in ((inputs[:, :1], True), (inputs, True), (inputs, False)):
        with torch.set_grad_enabled(gradients):
            network(piece, memory)
        assert all(torch.equal(memory[key], before[key]) for key in memory)


def test_acting_writes_the_rings_where_they_are() -> None:
    network, inputs = made("transformer")
    memory = network.initial(TRIALS)
    with torch.no_grad():
        _, following = network(inputs[:, :1], memory)
    rings = [key for key in memory if key not in ("steps", "last")]
    assert len(rings) == 4
    assert all(following[key] is memory[key] for key in rings)


@pytest.mark.parametrize("name", ["gru", "external"])
def test_the_first_step_counts_to_the_end(name: str) -> None:
    network, inputs = made(name)
    free = inputs.clone().requires_grad_()
    (slope,) = torch.autograd.grad(network(free, network.initial(TRIALS))[0][:, -1].sum(), free)
    assert (slope[:, 0].abs().sum(-1) > 0).all()


def test_a_transformers_step_knows_the_inputs_before_it() -> None:
    # Out of reach of a window of one step, only the embedding can bring them.
    network, inputs = one_block(window=1), torch.randn(TRIALS, 3, INPUTS, generator=torch.Generator().manual_seed(2))
    free = inputs.clone().requires_grad_()
    (slope,) = torch.autograd.grad(network(free, network.initial(TRIALS))[0][:, -1, 0].sum(), free)
    assert [bool((slope[:, step].abs().sum(-1) > 0).all()) for step in range(3)] == [False, True, True]


def one_block(window: int = WINDOW) -> Transformer:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return Transformer(INPUTS, 8, layers=1, heads=2, window=window)


def last_output(network: MemoryNetwork, inputs: Tensor) -> Tensor:
    return network(inputs, network.initial(len(inputs)))[0][:, -1]


@pytest.mark.parametrize(("ago", "seen"), [(WINDOW - 1, True), (WINDOW, True), (WINDOW + 1, False)])
def test_attention_reaches_back_to_the_windows_end(ago: int, seen: bool) -> None:
    # The step at its end brings the inputs before it.
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
    # The same window, after another number of steps that it does not reach; the last of them is as no step.
    network, (_, inputs) = one_block(), made("gru")
    window, earlier = inputs[:, -WINDOW:], torch.ones(TRIALS, before, INPUTS)
    earlier[:, -1] = 0
    longer = torch.cat([earlier, window], 1)
    torch.testing.assert_close(last_output(network, longer), last_output(network, window), rtol=0, atol=1e-9)


def attention_by_hand(network: Transformer, inputs: Tensor) -> Tensor:
    """Read one trial ``[L, D]``, query by query, with positions as complex numbers turned."""
    hidden = network.embed(torch.cat([inputs, torch.cat([torch.zeros(1, INPUTS), inputs[:-1]])], -1))
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


def slots_by_hand(network: ExternalMemory, inputs: Tensor) -> Tensor:
    """Read one trial ``[L, D]``, slot by slot."""
    slots, hidden, found = [torch.zeros(5) for _ in range(4)], torch.zeros(6), torch.zeros(5)
    read, usage, outputs = [0.0] * 4, [0.0] * 4, []
    for entries in inputs:
        hidden = network.controller(torch.cat([entries, found]), hidden)
        told = network.interface(hidden)
        key, vector = told[:5], told[5:10].tanh()
        gate, sharpness = torch.sigmoid(told[10]).item(), 1 + math.log1p(math.exp(told[11].item()))
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
