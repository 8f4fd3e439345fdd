"""Video recording: episodes of one task before and after adaptation, as frames."""

import math
from collections.abc import Container, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap

import numpy as np
import torch
from tensordict import TensorDict

from metarl.errors import InputError
from metarl.evaluation.video import write_video
from metarl.families.family import TaskFamily
from metarl.families.pictures import captioned, side_by_side
from metarl.learning.learner import Learner
from metarl.run.config import TrainConfig
from metarl.sampling.sampler import Sampler
from metarl.sampling.session import Session
from metarl.seeding import derive_seed
from metarl.worlds.vector_env import TaskVectorEnv

# For families without physical time: target duration of an episode in seconds, and limits of the frame rate.
EPISODE_SECONDS, SLOWEST, FASTEST = 5, 4, 20
# Frame rate above which frames are skipped.
MOST_FRAMES = 50
COLUMNS = 4
LETTER_WIDTH = 7
LONGEST_VALUE = 6


@dataclass(frozen=True)
class Take:
    """One recorded episode of T steps.

    Shapes:
        frames: uint8 ``[T + 1, H, W, 3]``, at the start and after each step.
        returns: ``[T + 1]``, undiscounted sum of the rewards so far.
    """

    label: str
    frames: np.ndarray
    returns: np.ndarray

    @property
    def steps(self) -> int:
        """The number of steps T."""
        return len(self.frames) - 1

    def panel(self, step: int) -> np.ndarray:
        """Return the captioned frame after a step; after the end of the episode, the last one."""
        now = min(step, self.steps)
        return captioned(self.frames[now], [self.label, f"return {self.returns[now]:.2f} at step {now}"])


@dataclass(frozen=True)
class Recording:
    """Episodes with the same initial state, one before adaptation and one after each adaptation step.

    Attributes:
        title: family and task.
        takes: the episodes.
        seconds_per_step: physical duration of a step, if the family has one.
    """

    title: str
    takes: Sequence[Take]
    seconds_per_step: float | None

    @property
    def fps(self) -> float:
        """Frames per second: real time if the family has physical time, up to the maximum frame rate."""
        return self._steps_per_second / self._stride

    def frames(self) -> np.ndarray:
        """Return the frames uint8 ``[T, H, W, 3]``: captioned episodes side by side, four in a row."""
        shown = [*range(0, self._steps, self._stride), self._steps]
        return np.stack([self._frame(step) for step in shown])

    def save(self, path: Path | str) -> None:
        """Write the video; see ``write_video``."""
        write_video(self.frames(), path, self.fps)

    @property
    def _steps(self) -> int:
        return max(take.steps for take in self.takes)

    @property
    def _steps_per_second(self) -> float:
        if self.seconds_per_step is not None:
            return 1 / self.seconds_per_step
        return min(max(self._steps / EPISODE_SECONDS, SLOWEST), FASTEST)

    @property
    def _stride(self) -> int:
        return math.ceil(round(self._steps_per_second / MOST_FRAMES, 6))

    def _frame(self, step: int) -> np.ndarray:
        panels = [take.panel(step) for take in self.takes]
        columns = min(COLUMNS, len(panels))
        panels += [np.full_like(panels[0], 255)] * (-len(panels) % columns)
        rows = [side_by_side(panels[start : start + columns]) for start in range(0, len(panels), columns)]
        return captioned(np.concatenate(rows), wrap(self.title, rows[0].shape[1] // LETTER_WIDTH))


def record(
    learner: Learner,
    family: TaskFamily,
    task: TensorDict,
    steps: int = 1,
    episodes: int = 20,
    seed: int = 0,
    device: torch.device | str = "cpu",
    deterministic: bool = False,
    shown: Container[int] | None = None,
) -> Recording:
    """Adapt a learner to one task, as ``adaptation_curve`` does, and record an episode before and after each step.

    The recorded episodes start in the same state and use the same random numbers. The learner neither learns from them
    nor is changed.

    Args:
        learner: trained or not.
        family: family of the task, as observed by the learner.
        task: parameters ``[1]``.
        steps: number of adaptation steps, at least 0.
        episodes: episodes per adaptation step; 1 for a learner that does not pool episodes.
        seed: seed of environments and actions.
        device: device of the environments.
        deterministic: show the policy's mode instead of sampled actions; adaptation still uses sampled ones.
        shown: adaptation steps after which an episode is recorded, 0 being before adaptation; by default all.

    Raises:
        InputError: for invalid counts, or if this machine cannot render.
        RunError: if sampling fails.
    """
    if steps < 0 or episodes < 1:
        raise InputError(f"a recording needs steps >= 0 and episodes >= 1, not {steps} and {episodes}")
    if episodes > 1 and not learner.pools_episodes:
        raise InputError(f"{learner.name} adapts to a single episode at each step, not {episodes}; leave episodes out")
    sampler, takes = Sampler(family, device, render=True), []
    session = sampler.session(learner, task, episodes)
    for step in range(steps + 1):
        if shown is None or step in shown:
            label = "before adaptation" if step == 0 else f"after adaptation step {step}"
            stream = derive_seed(seed, "recorded episode")
            takes.append(_take(label, sampler, session, stream, deterministic))
        if step < steps:
            sampler.run(session, derive_seed(seed, "recorded adaptation", step))
            session.adapt()
    return Recording(f"{family.name}: {task_text(task[0])}", takes, _seconds_per_step(family))


def record_run(
    config: TrainConfig,
    learner: Learner,
    task: TensorDict,
    steps: int = 1,
    episodes: int | None = None,
    seed: int = 0,
    deterministic: bool = False,
    shown: Container[int] | None = None,
) -> Recording:
    """Record a trained learner with its run's configuration; see ``record``.

    ``episodes`` is by default the run's ``episodes_per_task``, or 1 for a learner that does not pool episodes.
    """
    usual = config.run.episodes_per_task if learner.pools_episodes else 1
    family, device = config.make_family(), config.run.device
    count = usual if episodes is None else episodes
    return record(learner, family, task, steps, count, seed, device, deterministic, shown)


def task_text(task: TensorDict) -> str:
    """Return a task ``[]`` as text: ``goal=0.3,-0.2``; for long parameters only their size."""
    values = {str(key): task[key].flatten().tolist() for key in task.keys()}
    shown = {
        key: f"({len(value)} numbers)" if len(value) > LONGEST_VALUE else _numbers(value)
        for key, value in values.items()
    }
    return " ".join(f"{key}={value}" for key, value in shown.items())


def _take(label: str, sampler: Sampler, session: Session, seed: int, deterministic: bool) -> Take:
    """Record an episode that the session does not adapt to."""
    frames: list[np.ndarray] = []

    def watch(env: TaskVectorEnv) -> None:
        frames.extend(env.render() or ())

    rollout = sampler.collect(session.learner, session.state, session.tasks, 1, seed, deterministic, watch)
    rewards = rollout.rewards[rollout.valid].cpu().double().numpy()
    returns = np.concatenate([[0.0], rewards.cumsum()])
    return Take(label, np.stack(frames[: len(returns)]), returns)  # on CUDA worlds continue after their episode's end


def _seconds_per_step(family: TaskFamily) -> float | None:
    return getattr(family.base, "dt", None)


def _numbers(values: Sequence[float]) -> str:
    return ",".join(f"{value:.4g}" for value in values)
