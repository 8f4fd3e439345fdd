"""What all memories must have in common."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from metarl.agents.in_context.memories.gru import Gru
from metarl.agents.in_context.memories.memory import (
    MEMORIES,
    Memory,
    MemoryConfig,
    TransitionReader,
    make_memory,
    register_memory,
)
from metarl.errors import InputError
from tests.agents.in_context.memories.reading import INPUTS, NETWORKS, STEPS, TRIALS, made, read
from tests.agents.language.models import memory_settings

pytestmark = pytest.mark.usefixtures("float64_by_default")
every_memory = pytest.mark.parametrize("name", NETWORKS)
CUTS = st.lists(st.integers(1, STEPS - 1), max_size=6, unique=True).map(sorted)
LENGTHS = st.lists(st.integers(1, STEPS), min_size=TRIALS, max_size=TRIALS)


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


@pytest.mark.parametrize("name", ["gru", "lstm", "min-gru", "external", "set"])
def test_the_first_step_counts_to_the_end(name: str) -> None:
    network, inputs = made(name)
    free = inputs.clone().requires_grad_()
    (slope,) = torch.autograd.grad(network(free, network.initial(TRIALS))[0][:, -1, 0].sum(), free)
    assert (slope[:, 0].abs().sum(-1) > 0).all()


@pytest.mark.parametrize("name", ["gru that reads transitions", "transformer that reads transitions"])
def test_a_transition_reader_knows_the_inputs_of_the_step_before(name: str) -> None:
    network, inputs = made(name)
    assert isinstance(network, TransitionReader)
    forgetful = network.initial(TRIALS)
    changed = {**forgetful, "previous": torch.ones(TRIALS, INPUTS)}
    one, other = (network(inputs, memory)[0] for memory in (forgetful, changed))
    assert (one[:, 0] != other[:, 0]).any(-1).all()
    before = torch.cat([torch.zeros(TRIALS, 1, INPUTS), inputs[:, :-1]], 1)
    expected, _ = network.memory(torch.cat([inputs, before], -1), network.memory.initial(TRIALS))
    assert torch.equal(one, expected)


@pytest.mark.parametrize("name", list(MEMORIES))
@pytest.mark.parametrize("previous_step", ["auto", "yes", "no"])
def test_every_memory_can_be_given_the_step_before(name: str, previous_step: Any) -> None:
    network = make_memory(MemoryConfig(**memory_settings(name), previous_step=previous_step), INPUTS, 8)
    wanting = ("transformer", "set", "language-model")
    given_both = previous_step == "yes" or (previous_step == "auto" and name in wanting)
    assert isinstance(network, TransitionReader) == given_both
    outputs, _ = network(torch.randn(2, 3, INPUTS), network.initial(2))
    assert outputs.shape == (2, 3, network.size)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"memory": "gro"}, r"no memory is called 'gro'; did you mean gru\? \(docs/rl2.md lists them\)"),
        ({"previous_step": "maybe"}, "previous_step must be one of auto, yes, no, not 'maybe'"),
        ({"layers": 0}, "layers must be at least 1, not 0"),
        ({"heads": 0}, "heads must be at least 1, not 0"),
        ({"window": 0}, "window must be at least 1, not 0"),
        ({"slots": 0}, "slots must be at least 1, not 0"),
        ({"slot_size": 0}, "slot_size must be at least 1, not 0"),
        ({"adapter_rank": 0}, "adapter_rank must be at least 1, not 0"),
        (
            {"memory": "set", "orthogonal": True},
            "orthogonal would have no effect: the memory set has no recurrent weights; .*",
        ),
        ({"memory": "language-model"}, "the memory language-model needs --model: .* on the Hugging Face hub"),
        (
            {"memory": "transformer", "heads": 3},
            r"the memory transformer's size .* must be a multiple of 2 \* heads = 6, not 8",
        ),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"^{message}$"):
        MemoryConfig(**settings).check_memory(8)


def test_a_memory_of_ones_own_is_found_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MEMORIES, "mine", Gru)  # which undoes the registration after the test

    @register_memory
    class Mine(Gru):
        name = "mine"

    assert isinstance(make_memory(MemoryConfig(memory="mine"), INPUTS, 8), Mine)
