from functools import partial
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from metarl.devices.processes import Shard
from metarl.errors import InputError
from metarl.numerics.noise import BatchGenerator, check_drawn, draw_rows, exponential

KINDS = [torch.rand, torch.randn, partial(torch.randint, 1000), exponential]


def stream(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@given(st.sampled_from(KINDS), st.integers(1, 9), st.integers(1, 3), st.integers(1, 4))
@settings(deadline=None, max_examples=40)
def test_the_numbers_of_a_row_are_the_same_whoever_holds_it(kind: Any, rows: int, worlds: int, processes: int) -> None:
    whole = stream()
    bounds = [rank * rows // processes for rank in range(processes + 1)]
    shards = [Shard(start, stop, rows) for start, stop in pairwise(bounds)]
    generators = [shard.generator(stream(), worlds) for shard in shards]
    for width in (2, 3):  # one draw after the other
        expected = kind((rows * worlds, width), generator=whole)
        pieces = [
            draw_rows(kind, ((shard.stop - shard.start) * worlds, width), generator)
            for shard, generator in zip(shards, generators, strict=True)
        ]
        assert torch.equal(torch.cat(pieces), expected)
    for generator in generators:
        check_drawn(generator)


def test_one_process_keeps_its_own_generator() -> None:
    whole = stream()
    assert Shard(0, 5, 5).generator(whole) is whole
    part = Shard(1, 3, 5).generator(whole)
    assert isinstance(part, BatchGenerator)
    assert Shard(0, 5, 5).generator(part) is whole


def test_seeding_seeds_the_whole_batch() -> None:
    part = Shard(1, 3, 5).generator(stream(1)).manual_seed(7)
    assert torch.equal(draw_rows(torch.rand, (2,), part), torch.rand(5, generator=stream(7))[1:3])


def test_drawing_directly_from_a_part_is_refused() -> None:
    part = Shard(1, 3, 5).generator(stream())
    torch.rand(2, generator=part)
    with pytest.raises(InputError, match=r"metarl.numerics.noise.draw_rows\(torch.rand, shape, generator\)"):
        check_drawn(part)


@pytest.mark.parametrize("shape", [(), (5, 2)])
def test_numbers_of_a_part_have_a_row_for_each_of_its_rows(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"one row for each world or task, 2 here"):
        draw_rows(torch.rand, shape, Shard(1, 3, 5).generator(stream()))
