from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from metarl.devices.processes import ONE_PROCESS, Processes, Shard, digest
from metarl.errors import RunError
from tests.processes import in_threads

COUNTS = st.lists(st.integers(1, 5), min_size=1, max_size=4)


def pieces_of(counts: Sequence[int]) -> list[Tensor]:
    """Return rows ``[n, 2]`` for each process."""
    stream = torch.Generator().manual_seed(sum(counts))
    return list(torch.randn(sum(counts), 2, generator=stream, dtype=torch.float64).split(list(counts)))


def test_one_process_returns_its_own_tensors() -> None:
    values = [torch.ones(2), torch.zeros(3)]
    assert ONE_PROCESS.mean(values[0]) is values[0]
    assert all(one is other for one, other in zip(ONE_PROCESS.means(values), values, strict=True))
    assert (ONE_PROCESS.rank, ONE_PROCESS.size) == (0, 1)
    assert [ONE_PROCESS.all(flag) for flag in (True, False)] == [True, False]


@pytest.mark.parametrize("count", [1, 3, 7, 1000003])
def test_one_process_weighs_exactly_one_and_has_all_rows(count: int) -> None:
    assert ONE_PROCESS.weight(count) == 1.0
    assert ONE_PROCESS.rows(count) == (slice(0, count), count)
    assert ONE_PROCESS.shard(count) == Shard(0, count, count)


def test_moments_of_one_process_are_torchs_bit_for_bit() -> None:
    values = torch.randn(101, 3, generator=torch.Generator().manual_seed(0))
    mean, variance, count = ONE_PROCESS.moments(values)
    assert torch.equal(mean, values.mean(0))
    assert torch.equal(variance, values.var(0, correction=0))
    assert count == 101


@pytest.mark.parametrize("counts", [[4], [1, 3], [2, 0, 1]])
def test_a_function_of_all_rows_has_its_value_and_gradient_on_every_process(counts: list[int]) -> None:
    pieces, weight = pieces_of(counts), torch.tensor([[2.0], [-1.0]], dtype=torch.float64)

    def loss_of(rows: Tensor) -> Tensor:
        return (rows @ rows.T).square().sum() + (rows @ weight).exp().sum()

    def work(processes: Processes) -> tuple[Tensor, Tensor]:
        scale = torch.ones((), dtype=torch.float64, requires_grad=True)
        loss = loss_of(processes.joined(scale * pieces[processes.rank]))
        (slope,) = torch.autograd.grad(loss, scale)
        return loss.detach(), processes.mean(slope)

    scale = torch.ones((), dtype=torch.float64, requires_grad=True)
    expected = loss_of(scale * torch.cat(pieces))
    (slope,) = torch.autograd.grad(expected, scale)
    for found in in_threads(len(counts), work):
        torch.testing.assert_close(found, (expected.detach(), slope))


@given(COUNTS)
@settings(deadline=None, max_examples=20)
def test_weighted_means_and_moments_are_those_of_all_rows(counts: list[int]) -> None:
    pieces, whole = pieces_of(counts), torch.cat(pieces_of(counts))

    def work(processes: Processes) -> tuple[Tensor, Tensor, Tensor, int]:
        own = pieces[processes.rank]
        return processes.mean(processes.weight(len(own)) * own.mean(0)), *processes.moments(own)

    for weighted, mean, variance, count in in_threads(len(counts), work):
        torch.testing.assert_close(weighted, whole.mean(0))
        torch.testing.assert_close(mean, whole.mean(0))
        torch.testing.assert_close(variance, whole.var(0, correction=0))
        assert count == len(whole)


@given(COUNTS)
@settings(deadline=None, max_examples=20)
def test_the_processes_rows_are_all_rows_in_order(counts: list[int]) -> None:
    found = in_threads(len(counts), lambda processes: processes.rows(counts[processes.rank]))
    numbers = [number for own, _ in found for number in range(own.start, own.stop)]
    assert numbers == list(range(sum(counts)))
    assert {total for _, total in found} == {sum(counts)}


@given(st.integers(1, 6), st.integers(0, 40))
@settings(deadline=None, max_examples=20)
def test_parts_are_as_even_as_possible(size: int, total: int) -> None:
    shards = in_threads(size, lambda processes: processes.shard(total))
    numbers = [number for shard in shards for number in range(shard.start, shard.stop)]
    assert numbers == list(range(total))
    sizes = {shard.stop - shard.start for shard in shards}
    assert max(sizes) - min(sizes) <= 1


def test_several_means_come_back_in_their_shapes() -> None:
    def work(processes: Processes) -> list[Tensor]:
        return processes.means([torch.full((2, 3), 2.0 * processes.rank), torch.tensor(4.0 * processes.rank)])

    for first, second in in_threads(3, work):
        assert torch.equal(first, torch.full((2, 3), 2.0))
        assert torch.equal(second, torch.tensor(4.0))
    assert ONE_PROCESS.means([]) == []
    assert in_threads(2, lambda processes: processes.means([])) == [[], []]


def test_gradients_are_averaged_where_there_are_any() -> None:
    def work(processes: Processes) -> list[Tensor | None]:
        reached, other = (torch.zeros(2, requires_grad=True) for _ in range(2))
        reached.grad = torch.full((2,), float(processes.rank))
        processes.average_gradients([other, reached])
        return [other.grad, reached.grad]

    for other, reached in in_threads(2, work):
        assert other is None
        assert torch.equal(reached, torch.full((2,), 0.5))  # type: ignore[arg-type]


def test_all_agree_only_if_each_does() -> None:
    assert in_threads(3, lambda processes: processes.all(processes.rank != 1)) == [False] * 3
    assert in_threads(3, lambda processes: processes.all(True)) == [True] * 3


def test_a_failure_on_one_process_is_raised_on_all() -> None:
    def work(processes: Processes) -> str:
        def fail() -> None:
            if processes.rank == 1:
                raise RunError("rank 1 cannot")

        with pytest.raises(RunError) as error:
            processes.together(fail)
        return f"{error.value} {processes.together(lambda: processes.rank)}"

    assert in_threads(3, work) == [f"rank 1 cannot {rank}" for rank in range(3)]


def test_a_drift_is_raised_on_all() -> None:
    def work(processes: Processes) -> str:
        processes.check_equal(lambda: {"weight": torch.ones(3), "step": 4})
        with pytest.raises(RunError) as error:
            processes.check_equal(lambda: {"weight": torch.full((3,), 1 + 1e-7 * (processes.rank == 2)), "step": 4})
        return str(error.value)

    assert all("the parameters of process 2 differ from those of process 0" in found for found in in_threads(3, work))


STATE = {"b": [torch.zeros(2), 1.0], "a": {"c": torch.tensor([1, 2])}}


@pytest.mark.parametrize(
    "other",
    [
        {**STATE, "b": [torch.zeros(2), 2.0]},
        {**STATE, "b": [-torch.zeros(2), 1.0]},
        {**STATE, "b": [torch.zeros(2, dtype=torch.float64), 1.0]},
        {**STATE, "b": [torch.zeros(1, 2), 1.0]},
        {"b": STATE["b"], "d": STATE["a"]},
    ],
)
def test_a_digest_is_of_every_bit_and_of_the_structure(other: dict[str, Any]) -> None:
    assert digest(dict(reversed(STATE.items()))) == digest(STATE)
    assert digest(other) != digest(STATE)
