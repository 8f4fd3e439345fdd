import dataclasses
import math
from collections.abc import Callable
from typing import Literal

import pytest
import torch
from tensordict import TensorDict
from torch import Tensor

import metarl.envs  # noqa: F401 (registers the families)
from metarl.errors import InputError
from metarl.families.family import Source, make_family
from metarl.families.splits import TaskSplit
from metarl.seeding import generator
from tests.fakes import EchoFamily

PARTS: tuple[Literal["train", "validation", "test"], ...] = ("train", "validation", "test")
GRID = TaskSplit(make_family("gridnavi"))
CHEETAH = TaskSplit(make_family("half-cheetah-vel"))


def cells(tasks: TensorDict | None) -> list[tuple[int, int]]:
    assert tasks is not None
    return [(x, y) for x, y in tasks["goal"].tolist()]


def test_parts_of_a_finite_family_cover_it_without_overlap() -> None:
    parts = [cell for part in PARTS for cell in cells(GRID.finite(part))]
    assert sorted(parts) == sorted(cells(GRID.family.all_tasks()))
    assert len(set(parts)) == len(parts)


def test_a_fifth_of_a_finite_family_is_held_out_twice() -> None:
    # 21 goals: 20 % are 4.2.
    assert [len(cells(GRID.finite(part))) for part in PARTS] == [13, 4, 4]


def test_every_part_of_a_small_family_has_a_task() -> None:
    # A 3x3 grid has 5 goals.
    split = TaskSplit(make_family("gridnavi", size=3))
    assert [len(cells(split.finite(part))) for part in PARTS] == [3, 1, 1]


def test_an_infinite_family_has_no_finite_parts() -> None:
    assert CHEETAH.finite("test") is None


def test_training_tasks_of_a_finite_family_come_from_its_training_part() -> None:
    assert set(cells(GRID.train_tasks(500, 0))) == set(cells(GRID.finite("train")))


def test_streams_of_an_infinite_family_share_no_task() -> None:
    drawn = [CHEETAH.train_tasks(200, 0), *(CHEETAH.held_out_tasks(part, 200) for part in PARTS[1:])]
    values = torch.cat([tasks["velocity"] for tasks in drawn])
    assert len(values.unique()) == 600


def test_the_first_held_out_tasks_do_not_depend_on_how_many_there_are() -> None:
    # The echo family draws all identities before all lifetimes.
    split = TaskSplit(EchoFamily())
    few, many = split.held_out_tasks("test", 3), split.held_out_tasks("test", 20)
    assert torch.equal(few["identity"], many["identity"][:3])
    assert torch.equal(few["lifetime"], many["lifetime"][:3])


@pytest.mark.parametrize("part", ["validation", "test"])
def test_each_held_out_task_is_the_first_of_its_part_in_a_stream_of_its_own(
    part: Literal["validation", "test"],
) -> None:
    family, expected = make_family("random-mazes"), []
    for index in range(8):
        stream = generator(0, part, index)
        task = family.sample_tasks(1, stream)
        while family.part_of(task, 0) != PARTS.index(part):
            task = family.sample_tasks(1, stream)
        expected.append(task)
    assert (TaskSplit(family).held_out_tasks(part, 8) == TensorDict.cat(expected)).all()


def test_the_first_held_out_tasks_of_a_finite_family_do_not_either() -> None:
    assert cells(GRID.held_out_tasks("test", 2)) == cells(GRID.held_out_tasks("test", 4))[:2]


def test_held_out_tasks_are_the_same_at_every_call() -> None:
    one, other = (CHEETAH.held_out_tasks("validation", 5) for _ in range(2))
    assert torch.equal(one["velocity"], other["velocity"])


def test_a_finite_family_gives_no_held_out_task_twice() -> None:
    tasks = cells(GRID.held_out_tasks("test", 100))
    assert len(tasks) == len(set(tasks)) == 4


def test_held_out_tasks_have_one_axis() -> None:
    assert CHEETAH.held_out_tasks("test", 5).batch_size == torch.Size([5])


@pytest.mark.parametrize("count", [0, -1])
@pytest.mark.parametrize("split", [GRID, CHEETAH])
def test_no_held_out_tasks_are_refused(split: TaskSplit, count: int) -> None:
    with pytest.raises(InputError, match=f"at least 1, not {count}"):
        split.held_out_tasks("test", count)


def test_training_draws_differ_by_iteration() -> None:
    one, other = CHEETAH.train_tasks(5, 0, 1), CHEETAH.train_tasks(5, 0, 2)
    assert not torch.isin(one["velocity"], other["velocity"]).any()


def test_training_draws_differ_by_run_seed() -> None:
    one, other = CHEETAH.train_tasks(5, 0, 1), CHEETAH.train_tasks(5, 1, 1)
    assert not torch.isin(one["velocity"], other["velocity"]).any()


def test_a_training_draw_can_be_repeated() -> None:
    one, other = (CHEETAH.train_tasks(5, 0, 1) for _ in range(2))
    assert torch.equal(one["velocity"], other["velocity"])


def test_drawing_leaves_the_global_stream_alone() -> None:
    # A known trap: seeding inside the sampling of tasks resets the learner's own stream.
    before = torch.get_rng_state()
    CHEETAH.train_tasks(5, 0)
    GRID.held_out_tasks("test", 2)
    assert torch.equal(torch.get_rng_state(), before)


def test_another_seed_splits_otherwise() -> None:
    assert cells(TaskSplit(GRID.family, 1).finite("test")) != cells(GRID.finite("test"))


def test_the_fingerprint_is_stable() -> None:
    assert TaskSplit(make_family("half-cheetah-vel")).fingerprint() == CHEETAH.fingerprint()


@pytest.mark.parametrize(
    "other",
    [
        TaskSplit(make_family("half-cheetah-vel", "0-2-h200")),
        TaskSplit(make_family("half-cheetah-vel", "0-3-h100")),
        TaskSplit(make_family("half-cheetah-vel", horizon=199)),
        TaskSplit(make_family("half-cheetah-vel"), seed=1),
        TaskSplit(make_family("navigation-2d")),
    ],
    ids=["range", "preset", "horizon", "seed", "family"],
)
def test_the_fingerprint_changes_with(other: TaskSplit) -> None:
    assert other.fingerprint() != CHEETAH.fingerprint()


def test_the_fingerprint_depends_on_the_tasks_themselves() -> None:
    # Same settings, other draws: a changed sampling routine must show.
    class Shifted(type(CHEETAH.family)):  # type: ignore[misc]
        def sample_tasks(self, count: int, generator: torch.Generator) -> TensorDict:
            tasks: TensorDict = super().sample_tasks(count, generator) / 2
            return tasks

    assert TaskSplit(Shifted(**dataclasses.asdict(CHEETAH.family))).fingerprint() != CHEETAH.fingerprint()


def test_no_held_out_task_of_a_countable_family_is_there_twice() -> None:
    # 7 x 7 key and door has 2,940 tasks, about 588 of them for the test: 40 draws meet one twice more often than not.
    split = TaskSplit(make_family("key-and-door"))
    tasks = split.held_out_tasks("test", 200)
    rows = {tuple(tasks[key][row].flatten().tolist().__str__() for key in tasks.keys()) for row in range(200)}
    assert len(rows) == 200


def test_a_countable_family_gives_no_more_tasks_than_it_has() -> None:
    # Of its 450 tasks about 90 are in this part.
    found = len(TaskSplit(make_family("key-and-door", size=5)).held_out_tasks("test", 150))
    assert 60 < found < 120


OUTSIDE: dict[str, Callable[[TensorDict], Tensor]] = {
    "navigation-2d": lambda tasks: (tasks["goal"].abs().amax(-1) > 0.5) & (tasks["goal"].abs().amax(-1) <= 0.75),
    "sparse-point": lambda tasks: (tasks["angle"] >= math.pi) & (tasks["angle"] < 2 * math.pi),
    "half-cheetah-vel": lambda tasks: (tasks["velocity"] >= 3) & (tasks["velocity"] <= 4.5),
    "gridnavi": lambda tasks: (tasks["goal"] <= 1).all(-1),
}


@pytest.mark.parametrize("name", OUTSIDE)
def test_tasks_outside_the_distribution_are_near_it_and_the_same_at_every_call(name: str) -> None:
    split = TaskSplit(make_family(name))
    one, other = (split.tasks("ood", 50) for _ in range(2))
    assert OUTSIDE[name](one).all()
    assert (one == other).all()


def test_a_family_may_have_no_tasks_outside() -> None:
    with pytest.raises(InputError, match="bandit has no out-of-distribution tasks"):
        TaskSplit(make_family("bandit")).tasks("ood", 3)


@pytest.mark.parametrize("source", ["test", "ood"])
def test_no_tasks_at_all_are_refused(source: Source) -> None:
    with pytest.raises(InputError, match="at least 1, not 0"):
        TaskSplit(make_family("navigation-2d")).tasks(source, 0)
