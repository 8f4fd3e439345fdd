"""Which task a learner that meets one task at a time, as in a stream of tasks, is trained on."""

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor

from metarl.errors import InputError
from metarl.rollouts.rollout import Rollout


def the_task(rollouts: Sequence[Rollout], method: str) -> dict[str, Tensor]:
    """Return the parameters of the single task of an iteration's rollouts, on the CPU.

    Args:
        rollouts: of one iteration.
        method: what the learner does when its task changes.

    Raises:
        InputError: if the rollouts are of several tasks.
    """
    met = {str(name): cast(Tensor, value).cpu() for name, value in rollouts[0].tasks.items()}
    task = {name: value[0] for name, value in met.items()}
    if not all(bool((value == task[name]).all()) for name, value in met.items()):
        raise InputError(
            f"continual {method} meets one task at a time: train with --task-source stream, or use metarl continual"
        )
    return task


def is_another(task: Mapping[str, Tensor], known: Mapping[str, Tensor]) -> bool:
    """Return whether there is a known task, and it is another one."""
    return bool(known) and any(not torch.equal(known[name], value) for name, value in task.items())
