"""The returns of tasks before adaptation and after each of its steps, as a run stores and reports them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from tensordict import TensorDict

from metarl.families.family import Source
from metarl.numerics.statistics import interval, mean


@dataclass(frozen=True)
class AdaptationCurve:
    """Returns of held-out tasks before adaptation and after each adaptation step.

    Step k adapts to exactly those episodes whose mean return is in column k - 1: to all episodes of a task together,
    or, for a learner that remembers trials, to each within its own trial; the columns are then the episodes of the
    trials. Actions are sampled from the policy. If ``deterministic``, the columns are returns of additional episodes
    with the policy's mode, from which nothing is learned.

    Shapes:
        tasks: ``[N]``, parameters of the tasks.
        returns: ``[N, steps + 1]``, mean undiscounted return of ``episodes`` episodes; column 0 before adaptation.
        env_steps: ``[steps + 1]``, mean number of environment steps spent on a task (per trial, if trials are
            independent) before the column's episodes.
        success: ``[N, steps + 1]``, share of successful episodes; None if the family does not define success.

    Attributes:
        of_trials: whether the columns are the episodes of a trial, whose return is their sum.
        notes: what else the learner reports (``Learner.notes``).
    """

    tasks: TensorDict
    returns: np.ndarray
    env_steps: np.ndarray
    episodes: int
    part: Source
    success: np.ndarray | None = None
    deterministic: bool = False
    of_trials: bool = False
    notes: Mapping[str, float] = field(default_factory=dict)

    def interval(self, values: np.ndarray) -> tuple[float, float]:
        """Return the 95 % interval of the mean of one value per task ``[N]``, over the choice of tasks.

        It is NaN for a single task. See ``statistics.interval``.
        """
        if len(values) == 1:
            return math.nan, math.nan
        _, low, high = interval(mean, values[None])
        return low.item(), high.item()

    @property
    def gains(self) -> np.ndarray:
        """Return after the last step minus return before adaptation, for each task ``[N]``."""
        gains: np.ndarray = self.returns[:, -1] - self.returns[:, 0]
        return gains

    def to_json(self) -> dict[str, Any]:
        """Return the curve as plain lists; ``returns`` and ``success`` are ``[task][step]``."""
        success = {} if self.success is None else {"success": self.success.tolist()}
        notes = {"notes": dict(self.notes)} if self.notes else {}
        return {
            "part": self.part,
            "actions": "deterministic" if self.deterministic else "sampled",
            "episodes_per_step": self.episodes,
            "env_steps": self.env_steps.tolist(),
            "tasks": [{key: value.tolist() for key, value in task.items()} for task in self.tasks],
            "returns": self.returns.tolist(),
            **success,
            **notes,
        }
