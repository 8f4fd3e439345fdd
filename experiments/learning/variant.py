"""One learner of a comparison, and the recorded data it is trained on if it does not sample."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from metarl.agents.in_context.trial_learner import TrialConfig
from metarl.errors import InputError
from metarl.run.config import RunConfig, TrainConfig

# Maximum number of columns kept per task; with more adaptation steps a subset is kept.
MOST_COLUMNS, SOME_COLUMNS = 40, 12


@dataclass(frozen=True)
class Recording:
    """Episodes to train on, which another run's policy records, as ``metarl collect`` does.

    Attributes:
        config: the other run; it gets the variant's seed.
        tasks: number of training tasks.
        episodes: of each task, before and after each adaptation.
        steps: adaptation steps, which make the episodes learning histories; None for as many as in training.
        best_actions: whether to record the best actions as well.
    """

    config: TrainConfig
    tasks: int
    episodes: int
    steps: int | None = None
    best_actions: bool = False


@dataclass(frozen=True)
class Variant:
    """One learner of a comparison.

    Attributes:
        config: its training run; ``run.iterations`` is the length of training.
        steps: number of adaptation steps to measure.
        evaluations: number of evaluations, evenly spaced, the last one at the end of training.
        protocol: measures success rates of a finished run, given its directory: ``all``, and by environment. With it
            the comparison is of success rates: they are also measured on training tasks, and plotted.
        recording: recorded data for training without environment steps; None if it samples.
        on_training_tasks: whether returns on training tasks are measured as well.
        episodes: episodes of each adaptation step that is measured; None for as many as in training.

    Raises:
        InputError: for negative steps, or if there are not 1 to ``iterations`` evaluations.
    """

    config: TrainConfig
    steps: int
    evaluations: int
    protocol: Callable[[Path], dict[str, float]] | None = None
    recording: Recording | None = None
    on_training_tasks: bool = False
    episodes: int | None = None

    def __post_init__(self) -> None:
        iterations = self.config.run.iterations
        if self.steps < 0 or not 1 <= self.evaluations <= iterations:
            raise InputError(
                f"a variant of {iterations} iterations needs steps >= 0 and 1 to {iterations} evaluations, "
                f"not {self.steps} and {self.evaluations}"
            )

    @property
    def stops(self) -> list[int]:
        """The iterations after which it is evaluated."""
        total = self.config.run.iterations
        return [total * number // self.evaluations for number in range(1, self.evaluations + 1)]

    @property
    def columns(self) -> list[int]:
        """The steps whose returns on each task are kept: all or a subset, including that of training."""
        few = self.steps + 1 if self.steps < MOST_COLUMNS else SOME_COLUMNS
        return sorted({round(step) for step in np.linspace(0, self.steps, few)} | {self.inner_steps})

    @property
    def inner_steps(self) -> int:
        """Adaptation steps in training, at most ``steps``; ``steps`` if the learner has no such setting."""
        return min(self.steps, getattr(self.config.settings, "inner_steps", self.steps))


def from_scratch(learner: str, family: str, run: RunConfig, settings: object, steps: int) -> Variant:
    """Return a variant that learns each held-out task from scratch; its training run is only a record."""
    record = dataclasses.replace(run, iterations=1, tasks_per_batch=1)
    return Variant(TrainConfig(learner, family, record, settings), steps, evaluations=1)


def in_context(learner: str, run: RunConfig, settings: TrialConfig, family: str = "gridnavi") -> Variant:
    """Return a variant that adapts within its trial: the steps are the episodes after the first."""
    return Variant(TrainConfig(learner, family, run, settings), settings.episodes_per_trial - 1, evaluations=10)
