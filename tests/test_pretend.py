"""The pretend device does what a GPU does."""

import pytest
import torch

from tests.pretend import NAME, MixedDevices, PretendDevice


@pytest.fixture
def there():
    with PretendDevice() as device:
        yield device


def test_results_are_on_the_device_and_have_the_values_of_the_cpu(there: PretendDevice) -> None:
    values = torch.arange(6.0).view(2, 3)
    ours = values.to(NAME)
    weights = torch.ones(3, 2, device=NAME, requires_grad=True)
    (ours @ weights).square().sum().backward()
    assert (ours.device.type, weights.grad.device.type, ours.is_cuda) == (NAME, NAME, False)
    assert weights.grad.tolist() == (2 * values.T @ (values @ torch.ones(3, 2))).tolist()


def test_generators_of_the_device_draw_the_cpus_numbers(there: PretendDevice) -> None:
    ours, theirs = (torch.Generator(device).manual_seed(3) for device in (NAME, "cpu"))
    assert ours.device.type == NAME
    drawn = torch.rand(4, generator=ours, device=NAME)
    assert drawn.tolist() == torch.rand(4, generator=theirs).tolist()


@pytest.mark.parametrize(
    "mix",
    [
        lambda ours, theirs: ours + theirs,
        lambda ours, theirs: torch.stack([ours, theirs]),
        lambda ours, theirs: torch.stack([ours.sum(), theirs.sum()]),
        lambda ours, theirs: theirs.sum().add_(ours.sum()),
        lambda ours, theirs: torch.rand(2, generator=torch.Generator(), device=NAME),
        lambda ours, theirs: torch.rand(2, generator=torch.Generator(NAME)),
    ],
)
def test_devices_are_not_mixed(there: PretendDevice, mix) -> None:
    with pytest.raises(MixedDevices):
        mix(torch.ones(2, device=NAME), torch.ones(2))


def test_a_number_of_the_cpu_may_be_mixed_in(there: PretendDevice) -> None:
    assert (torch.ones(2, device=NAME) + torch.tensor(2.0)).tolist() == [3.0, 3.0]


def filled(values: torch.Tensor) -> None:
    values[values > 0] = 0.0


@pytest.mark.parametrize(
    ("work", "waits"),
    [
        (lambda values: values + 1, 0),
        (filled, 0),
        (lambda values: torch.ones(2).to(NAME, non_blocking=True), 0),
        (lambda values: values.sum().item(), 1),
        (lambda values: bool(values.any()), 1),
        (lambda values: values.nonzero(), 1),
        (lambda values: values[values > 0], 1),
        (lambda values: values.cpu(), 1),
        (lambda values: values.tolist(), 1),
        (lambda values: torch.tensor([1, 2], device=NAME), 1),
        (lambda values: values.new_tensor([1, 2]), 1),
        (lambda values: values[torch.tensor([0])], 1),
        (lambda values: values.copy_(torch.zeros(2)), 1),
    ],
)
def test_waits_are_counted(there: PretendDevice, work, waits: int) -> None:
    values = torch.ones(2, device=NAME)
    work(values)
    assert len(there.waits) == waits


def test_a_graph_is_replayed_over_the_same_memory(there: PretendDevice) -> None:
    total, noise = torch.zeros(2, device=NAME), torch.Generator(NAME).manual_seed(0)
    calls = []

    def step() -> None:
        calls.append(1)
        total.add_(2 * torch.rand(2, generator=noise, device=NAME)).view(2)[:1].mul_(-1)

    graph = there.record(step, [noise])
    for _ in range(2):
        graph.replay()
    replayed = total.tolist()
    total.zero_()
    noise.manual_seed(0)
    for _ in range(2):
        step()
    assert replayed == total.tolist()
    assert len(calls) == 1 + 2


@pytest.mark.parametrize(
    "work",
    [
        lambda values: values.sum().item(),
        lambda values: torch.ones(2).to(NAME, non_blocking=True),
        lambda values: torch.rand(2, generator=torch.Generator(NAME), device=NAME),
    ],
)
def test_what_waits_or_comes_from_the_host_is_not_recorded(there: PretendDevice, work) -> None:
    values = torch.ones(2, device=NAME)
    with pytest.raises(RuntimeError, match=r"cannot be recorded|does not know"):
        there.record(lambda: work(values), [])


def test_a_graph_does_not_keep_the_memory_that_it_was_given(there: PretendDevice) -> None:
    values = [torch.ones(2, device=NAME)]
    graph = there.record(lambda: values[0].add_(1), [])
    graph.replay()
    del values[:]
    with pytest.raises(RuntimeError, match="memory that has been freed"):
        graph.replay()
