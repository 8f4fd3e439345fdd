"""The tasks of Meta-World's benchmarks, drawn by the package ``metaworld``."""

import pickle
from collections.abc import Iterable
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from tensordict import TensorDict

from metarl.envs.manipulation.package import check_names, environments, indices, load_package

# Tasks of each environment, and numbers of a placement.
DRAWS, LONGEST_VECTOR = 50, 6


@cache
def benchmark_tasks(
    benchmark: str, arguments: tuple[str | tuple[str, ...], ...], seed: int
) -> tuple[TensorDict, TensorDict]:
    """Return the training and the test tasks of a benchmark, its environments taking turns.

    They are those of the package's own class ``benchmark``, made with ``arguments`` and ``seed``.

    Raises:
        InputError: when the package is missing, or has no such environment.
    """
    check_names(name for argument in arguments for name in ([argument] if isinstance(argument, str) else argument))
    if benchmark == "ML1":  # whose test tasks the package draws from the next seed
        names = [str(name) for name in arguments]
        return _draw_tasks(names, seed), _draw_tasks(names, seed + 1)
    if benchmark == "CustomML":
        train, test = arguments
        return _draw_tasks(train, seed), _draw_tasks(test, seed)
    parts = getattr(load_package().env_dict, f"{benchmark}_V3")
    return _draw_tasks(parts["train"], seed), _draw_tasks(parts["test"], seed)


def _draw_tasks(names: Iterable[str], seed: int) -> TensorDict:
    """Draw the tasks of environments as the package does.

    It draws each task in a reset, which simulates the hand's way to its place. No draw depends on that, and it takes
    most of the time, so here the environments are made with a hand that stays where it is.
    """
    kinds = dict(environments())
    makers = {name: partial(_make_still, kinds[name]) for name in names}
    arguments = {name: {"args": [], "kwargs": {"task_id": index}} for index, name in enumerate(makers)}
    return _as_tensors(load_package()._make_tasks(makers, arguments, {}, seed=seed))


def _make_still(kind: type[Any]) -> Any:
    import mujoco

    env = kind()
    env.do_simulation = lambda *_: mujoco.mj_forward(env.model, env.data)
    return env


def _as_tensors(tasks: list[Any]) -> TensorDict:
    placements = np.zeros((len(tasks), LONGEST_VECTOR))
    for row, task in enumerate(tasks):
        vector = pickle.loads(task.data)["rand_vec"]  # noqa: S301 (the package's own, made a moment ago)
        placements[row, : len(vector)] = vector
    numbers = torch.tensor([indices()[task.env_name] for task in tasks])
    grouped = TensorDict({"environment": numbers, "placement": torch.from_numpy(placements)}, [len(tasks)])
    in_turn: TensorDict = grouped[torch.arange(len(tasks)).view(-1, DRAWS).T.flatten()]
    return in_turn
