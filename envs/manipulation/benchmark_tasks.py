"""The tasks of Meta-World's benchmarks, drawn by the package ``metaworld``."""

import pickle
from collections.abc import Iterable
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from tensordict import TensorDict

from metarl.envs.manipulation.package import check_names, environments, indices, load_package

# Tasks of each environment, and entries of a placement (padded with zeros).
TASKS_PER_ENVIRONMENT, PLACEMENT_SIZE = 50, 6


@cache
def benchmark_tasks(
    benchmark: str, arguments: tuple[str | tuple[str, ...], ...], seed: int
) -> tuple[TensorDict, TensorDict]:
    """Return the training and test tasks of a benchmark, with its environments interleaved.

    They are the tasks of the package's class ``benchmark`` constructed with ``arguments`` and ``seed``.

    Raises:
        InputError: when the package is missing, or has no such environment.
    """
    check_names(name for argument in arguments for name in ([argument] if isinstance(argument, str) else argument))
    if benchmark == "ML1":  # the package draws its test tasks with the next seed
        names = [str(name) for name in arguments]
        return _draw_tasks(names, seed), _draw_tasks(names, seed + 1)
    if benchmark == "CustomML":
        train, test = arguments
        return _draw_tasks(train, seed), _draw_tasks(test, seed)
    parts = getattr(load_package().env_dict, f"{benchmark}_V3")
    return _draw_tasks(parts["train"], seed), _draw_tasks(parts["test"], seed)


def _draw_tasks(names: Iterable[str], seed: int) -> TensorDict:
    """Draw the tasks of environments as the package does.

    The package draws each task during a reset, which also simulates the hand moving to its initial position, and
    observes. No draw depends on either, and they take most of the time, so they are left out here.
    """
    classes = dict(environments())
    makers = {name: partial(_make_that_only_draws, classes[name]) for name in names}
    arguments = {name: {"args": [], "kwargs": {"task_id": index}} for index, name in enumerate(makers)}
    return _as_tensors(load_package()._make_tasks(makers, arguments, {}, seed=seed))


def _make_that_only_draws(environment_class: type[Any]) -> Any:
    env = environment_class()
    env.init_tcp = np.zeros(3)
    env._reset_hand = lambda steps=50: None
    env._get_obs = lambda: np.zeros(39)
    return env


def _as_tensors(tasks: list[Any]) -> TensorDict:
    placements = np.zeros((len(tasks), PLACEMENT_SIZE))
    for row, task in enumerate(tasks):
        vector = pickle.loads(task.data)["rand_vec"]  # noqa: S301 (pickled by the package a moment ago)
        placements[row, : len(vector)] = vector
    numbers = torch.tensor([indices()[task.env_name] for task in tasks])
    grouped = TensorDict({"environment": numbers, "placement": torch.from_numpy(placements)}, [len(tasks)])
    interleaved: TensorDict = grouped[torch.arange(len(tasks)).view(-1, TASKS_PER_ENVIRONMENT).T.flatten()]
    return interleaved
