"""The runs of a continual experiment: a stream of tasks for each method and seed, and each task from scratch."""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tensordict import TensorDict

from metarl.errors import InputError
from metarl.learning.learner import LEARNERS
from metarl.run.config import TrainConfig
from metarl.sampling.task_source import StreamConfig
from metarl.validation import require_count

RUNS, SCRATCH = "runs", "scratch"
# With fewer, too few tasks have others before and after them.
FEWEST_TASKS = 3


@dataclass(frozen=True)
class Experiment:
    """What is trained.

    Attributes:
        base: learner, family and settings; ``iterations`` is the number on each task.
        tasks: number K of tasks.
        methods: how tasks are met, of ``Learner.continual``.
        seeds: S seeds.
        out: folder of the report and of the runs.

    Raises:
        InputError: for a learner that cannot meet tasks one by one, an unknown method, and too few tasks.
    """

    base: TrainConfig
    tasks: int
    methods: Sequence[str]
    seeds: Sequence[int]
    out: Path

    def __post_init__(self) -> None:
        learner, able = self.base.learner, self.base.learner_class.continual
        if not able:
            names = [name for name, each in LEARNERS.items() if each.continual]
            raise InputError(f"metarl continual does not work with {learner}, only with {', '.join(names)}")
        if self.base.learner_class.from_scratch(self.base.settings):
            raise InputError(f"{learner} from scratch has nothing to forget; use --variant oracle or pretrained")
        for method in self.methods:
            if method not in able:
                raise InputError(f"--methods of {learner} are {', '.join(able)}, not {method!r}")
        require_count("the number of tasks", self.tasks)
        if self.tasks < FEWEST_TASKS:
            raise InputError(f"metarl continual needs --tasks {FEWEST_TASKS} or more, not {self.tasks}")
        if (there := len(self.sequence)) < self.tasks:
            raise InputError(f"{self.base.family} has {there} training tasks, not {self.tasks}; use a smaller --tasks")

    @property
    def sequence(self) -> TensorDict:
        """The tasks ``[K]``, in the order in which they are met: the first training tasks of the split."""
        return self.base.split().held_out_tasks("train", self.tasks)

    @property
    def iterations(self) -> int:
        """Iterations on each task."""
        return self.base.run.iterations

    def runs(self) -> Iterator[TrainConfig]:
        """Yield all runs: those from scratch first."""
        for seed in self.seeds:
            yield from (self.from_scratch(task, seed) for task in range(self.tasks))
        for method in self.methods:
            yield from (self.stream(method, seed) for seed in self.seeds)

    def stream(self, method: str, seed: int) -> TrainConfig:
        """Return the run that meets all tasks by a method."""
        return self._run(method, seed, 0, self.tasks, method)

    def from_scratch(self, task: int, seed: int) -> TrainConfig:
        """Return the run that learns a single task."""
        return self._run(self.base.learner_class.continual[0], seed, task, 1, f"{SCRATCH}-task{task}")

    def _run(self, method: str, seed: int, first: int, tasks: int, name: str) -> TrainConfig:
        run = dataclasses.replace(
            self.base.run,
            iterations=tasks * self.iterations,
            seed=seed,
            out=str(self.out / RUNS / f"{name}-seed{seed}"),
            task_source="stream",
            train_tasks=self.tasks,
            stream=StreamConfig(self.iterations, first),
        )
        settings = self.base.settings
        if hasattr(settings, "continual"):
            settings = dataclasses.replace(settings, continual=method)
        return dataclasses.replace(self.base, run=run, settings=settings)
