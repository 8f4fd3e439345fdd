"""Training, validation and test tasks of a family: disjoint, seeded, and hashed."""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from tensordict import TensorDict
from torch import Tensor

from metarl.errors import InputError
from metarl.families.family import Part, Source, TaskFamily
from metarl.seeding import derive_seed, generator
from metarl.validation import require_count

PARTS: tuple[Part, ...] = ("train", "validation", "test")
FINGERPRINT_TASKS = 64
# After this many draws per task, a held-out part is assumed to have no more tasks than were found.
DRAWS_PER_TASK = 5
# Of five equally likely remainders of a hash, three are training, one validation and one test.
REMAINDERS, TRAINING_REMAINDERS = 5, 3


@dataclass(frozen=True)
class TaskSplit:
    """Disjoint training, validation and test tasks.

    If a benchmark fixes the parts of a family, they are used. A family with finitely many tasks is partitioned (60, 20
    and 20 % of a seeded permutation, at least one each) and each part draws from its own tasks; one with countably
    many assigns each draw to a part by a hash. Any other family has three streams of independent draws.

    Args:
        family: family of the tasks.
        seed: seed of the split. Runs with different seeds share a split, and so are tested on the same tasks.
        train_limit: size to which the training part is restricted, as PEARL (Rakelly et al. 2019) trains on 100 tasks;
            its first tasks are kept. None does not restrict it. The other parts do not change.
    """

    family: TaskFamily
    seed: int = 0
    train_limit: int | None = None

    def train_tasks(self, count: int, *keys: int | str) -> TensorDict:
        """Draw ``count`` training tasks ``[count]``; ``keys`` (a run's seed, an iteration) name the draw.

        Raises:
            InputError: if there are fewer training tasks than ``train_limit``.
        """
        return self._draw("train", count, *keys)

    def held_out_tasks(self, part: Part, count: int) -> TensorDict:
        """Return the first ``count`` validation or test tasks, the same at every call, without duplicates.

        A family with finitely many tasks may have fewer.

        Raises:
            InputError: for a count below 1.
        """
        require_count("the number of tasks", count)
        tasks = self.finite(part)
        if tasks is not None:
            return tasks[:count]
        # One stream per task, so that the first tasks do not depend on how many are requested.
        drawn: list[TensorDict] = []
        rows: list[int] = []
        for first in range(0, DRAWS_PER_TASK * count, count):
            streams = [generator(self.seed, part, index) for index in range(first, first + count)]
            drawn.append(self._of_part(part, streams))
            rows = _distinct(_joined(drawn))[:count]
            if len(rows) == count:
                break
        return _joined(drawn)[rows]

    def tasks(self, source: Source, count: int) -> TensorDict:
        """Return the first ``count`` tasks of a part, or tasks outside the distribution; the same at every call.

        There may be fewer, as in ``held_out_tasks``.

        Raises:
            InputError: for a count below 1, or if the family has no tasks outside its distribution.
        """
        if source != "ood":
            return self.held_out_tasks(source, count)
        require_count("the number of tasks", count)
        drawn = self.family.outside_tasks(count, generator(self.seed, "ood"))
        if drawn is None:
            raise InputError(
                f"{self.family.name} has no out-of-distribution tasks (ood); use those of train, validation or test"
            )
        return drawn[:count]

    def finite(self, part: Part) -> TensorDict | None:
        """Return all tasks of a part, if there are finitely many, else None."""
        if part == "train" and self.train_limit is not None:
            return self._fixed
        if (own := self.family.own_split()) is not None:
            return own[part]
        if (tasks := self.family.all_tasks()) is None:
            return None
        if (total := len(tasks)) < 3:
            raise InputError(f"{self.family.name} has {total} tasks, but a split into three non-empty parts needs 3")
        order = torch.randperm(total, generator=generator(self.seed, "split"))
        held_out = max(1, round(0.2 * total))
        pieces = torch.split(order, [total - 2 * held_out, held_out, held_out])
        return tasks[pieces[PARTS.index(part)]]

    def fingerprint(self) -> str:
        """Return a hash of the family's settings and the first tasks of each part."""
        digest = hashlib.sha256(json.dumps([self.family.name, self.family.settings(), self.seed]).encode())
        whole = TaskSplit(self.family, self.seed)  # a limit does not change the parts
        drawn = [whole.train_tasks(FINGERPRINT_TASKS, "fingerprint")]
        drawn += [whole.held_out_tasks(part, FINGERPRINT_TASKS) for part in ("validation", "test")]
        for tasks in drawn:
            for key in sorted(tasks.keys()):
                digest.update(tasks[key].numpy().tobytes())
        return digest.hexdigest()[:16]

    @cached_property
    def _fixed(self) -> TensorDict:
        """The tasks that training is restricted to."""
        assert self.train_limit is not None
        tasks = TaskSplit(self.family, self.seed).held_out_tasks("train", self.train_limit)
        if len(tasks) < self.train_limit:
            raise InputError(
                f"{self.family.name} has only {len(tasks)} training tasks, not {self.train_limit}; use a smaller "
                "--train-tasks, or omit it to train on all of them"
            )
        return tasks

    def _draw(self, part: Part, count: int, *keys: int | str) -> TensorDict:
        stream = generator(self.seed, part, *keys)
        if (tasks := self.finite(part)) is not None:
            return tasks[torch.randint(len(tasks), (count,), generator=stream)]
        return self._redrawn(part, count, lambda rows: self.family.sample_tasks(len(rows), stream))

    def _of_part(self, part: Part, streams: Sequence[torch.Generator]) -> TensorDict:
        """Draw one task of a part from each stream."""
        return self._redrawn(
            part, len(streams), lambda rows: _joined(self.family.sample_tasks(1, streams[row]) for row in rows)
        )

    def _redrawn(self, part: Part, count: int, draw: Callable[[Sequence[int]], TensorDict]) -> TensorDict:
        """Draw ``count`` tasks, and redraw the rows of those that belong to another part until none does."""
        tasks = draw(range(count))
        while (parts := self.family.part_of(tasks, self.seed)) is not None:
            if not (foreign := (parts != PARTS.index(part)).nonzero().flatten().tolist()):
                break
            tasks[foreign] = draw(foreign)
        return tasks


def task_keys(tasks: TensorDict) -> list[bytes]:
    """Return for each of N tasks the bytes of its parameters, equal for equal tasks."""
    columns = [tasks[key].cpu().numpy() for key in sorted(tasks.keys())]
    return [b"".join(column[row].tobytes() for column in columns) for row in range(len(tasks))]


def _distinct(tasks: TensorDict) -> list[int]:
    """Return the indices of the tasks that are not equal to an earlier one."""
    first: dict[bytes, int] = {}
    for row, key in enumerate(task_keys(tasks)):
        first.setdefault(key, row)
    return list(first.values())


def _joined(tasks: Iterable[TensorDict]) -> TensorDict:
    joined: TensorDict = TensorDict.cat(list(tasks))
    return joined


def hashed_part(seed: int, *numbers: Tensor) -> Tensor:
    """Return the part of each task for families with countably many tasks: about 60, 20 and 20 % of them.

    A task's part depends only on ``seed`` and its own numbers, not on other tasks, the device or a random stream.

    Args:
        seed: seed of the split.
        numbers: integers ``[count, ...]`` on the CPU that identify a task.

    Returns:
        int64 ``[count]`` into (train, validation, test).
    """
    # In NumPy: splits hash one task at a time, and on so few numbers a torch operation takes ten times as long.
    columns = np.concatenate([number.long().reshape(len(number), -1).numpy() for number in numbers], 1)
    hashes = np.full(len(columns), derive_seed(seed, "parts"), np.uint64)
    for column in np.ascontiguousarray(columns.T).view(np.uint64):
        hashes = _mixed(hashes ^ column)
    return _part_of_hash(torch.from_numpy(hashes.view(np.int64)))


def hashed_text_part(seed: int, texts: Sequence[str]) -> Tensor:
    """Return the part of each task as ``hashed_part`` does, for tasks identified by strings."""
    return _part_of_hash(torch.tensor([derive_seed(seed, "part", text) for text in texts]))


def _part_of_hash(hashes: Tensor) -> Tensor:
    return (hashes.remainder(REMAINDERS) - TRAINING_REMAINDERS + 1).clamp(min=0)


def _mixed(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Mix the bits of 64-bit integers bijectively (SplitMix64's finaliser: Steele, Lea and Flood 2014, figure 17)."""
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))
