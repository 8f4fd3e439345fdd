"""Whether an iteration's episodes fit in memory, before a run begins that could never finish its first iteration."""

import os

import numpy as np
import torch

from metarl.errors import InputError
from metarl.families.spaces import observed_space
from metarl.learning.learner import Learner
from metarl.run.config import TrainConfig

GIBIBYTE = 2**30


def refuse_too_large_episodes(config: TrainConfig, learner: Learner, processes: int) -> None:
    """Refuse a configuration whose episodes of one iteration are larger than the memory of its device.

    Observations, actions and rewards are counted. What else an update needs depends on the learner.

    Args:
        config: of the run.
        learner: made from it.
        processes: number of processes that share the episodes, each with as much memory.

    Raises:
        InputError: if the episodes do not fit.
    """
    run, family = config.run, config.make_family()
    space, actions = observed_space(family.observation_space), family.action_space
    assert space.shape is not None
    assert space.dtype is not None
    step = int(np.prod(space.shape)) * space.dtype.itemsize + 4 * int(np.prod(actions.shape or ())) + 4
    rollouts = learner.inner_steps + 1
    size = rollouts * run.tasks_per_batch * run.episodes_per_task * family.horizon * step / processes
    if size > (memory := _memory(torch.device(run.device))):
        raise InputError(
            f"the episodes of one iteration need {size / GIBIBYTE:,.0f} GiB, and {run.device} has "
            f"{memory / GIBIBYTE:,.0f} GiB ({rollouts:,} rollouts of {run.tasks_per_batch:,} tasks, "
            f"{run.episodes_per_task:,} episodes and {family.horizon:,} steps); use a smaller --tasks-per-batch or "
            "--episodes-per-task"
        )


def _memory(device: torch.device) -> int:
    """Return the bytes of a device's memory."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
