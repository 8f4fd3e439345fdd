"""``check_family``: whether a task family implements its interface correctly."""

import dataclasses
import re
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env
from tensordict import TensorDict
from torch import Tensor

from metarl.checks.dynamics import check_dynamics
from metarl.checks.problems import attempt, is_frozen_dataclass, require
from metarl.errors import InputError
from metarl.families.family import FAMILIES, TaskFamily, make_family
from metarl.families.spaces import require_actions
from metarl.families.splits import PARTS, TaskSplit
from metarl.seeding import generator
from metarl.worlds.numpy_env import TaskEnv

TASKS, HELD_OUT = 200, 20
SHORT = 5
DRAW = "draw everything from the generator that is passed"


def check_family(family: TaskFamily | type[TaskFamily] | str, device: str = "cpu") -> None:
    """Check that a family implements ``TaskFamily`` correctly.

    This covers names, presets and spaces; that tasks are in the task space, reproducible, and split into disjoint
    parts; shapes, dtypes and bounds of the worlds' outputs, masked resets, and that the same seed gives the same
    episodes; and, where installed, the environment checkers of Gymnasium and Stable-Baselines3. Episodes are shortened
    to a few steps if the family allows it.

    Args:
        family: a family, its class, or the name of a registered one, also as ``module:name``.
        device: device on which its worlds are checked.

    Raises:
        InputError: for the first problem, in one line: what is wrong, and what to do.
    """
    made = _shortened(_made(family))
    _check_names(made)
    _check_spaces(made)
    _check_sampling(made)
    _check_split(made)
    check_dynamics(made, torch.device(device))
    _check_by_others(made)


def _made(family: TaskFamily | type[TaskFamily] | str) -> TaskFamily:
    """Return the family, made from the first preset if a class or name is given."""
    if isinstance(family, TaskFamily):
        return family
    if isinstance(family, str):
        return make_family(family)
    require(
        issubclass(family, TaskFamily),
        family.__name__,
        "is not a TaskFamily",
        "derive it from metarl.families.family.TaskFamily",
    )
    require(
        FAMILIES.get(getattr(family, "name", "")) is family,
        family.__name__,
        "is not registered",
        "decorate the class with @register_family and give it a name of its own",
    )
    return make_family(family.name)


def _shortened(family: TaskFamily) -> TaskFamily:
    """Return the family with episodes of a few steps, if it accepts another horizon."""
    name = type(family).__name__
    require(
        is_frozen_dataclass(type(family)),
        name,
        "is not a frozen dataclass",
        "decorate the class with @dataclass(frozen=True)",
    )
    fields = {field.name for field in dataclasses.fields(family)}  # type: ignore[arg-type]
    horizon = getattr(family, "horizon", None)
    whole = isinstance(horizon, int) and horizon >= 1
    require(whole, name, f"has the horizon {horizon!r}", "add a field horizon, an integer of at least 1")
    if "horizon" not in fields:  # a view has another family's
        return family
    try:
        return dataclasses.replace(family, horizon=min(family.horizon, SHORT))  # type: ignore[type-var]
    except InputError:  # its horizon is fixed
        return family


def _check_names(family: TaskFamily) -> None:
    name = getattr(family, "name", None)
    require(isinstance(name, str) and bool(name), type(family).__name__, "has no name", "set the class variable name")
    if FAMILIES.get(family.name) is not type(family):
        return  # a family used without a name
    kebab = re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", family.name) is not None
    require(kebab, family.name, "is not a name in kebab case", "use lower-case letters and digits joined by hyphens")
    fields = {field.name for field in dataclasses.fields(family)}  # type: ignore[arg-type]
    require("horizon" in fields, family.name, "has no field horizon", "add one: the steps of an episode")
    require(bool(family.presets), family.name, "has no preset", "set the class variable presets: values by preset name")
    for preset, values in family.presets.items():
        unknown = sorted(set(values) - fields)
        require(not unknown, family.name, f"the preset {preset} sets {unknown}, not fields", f"use {sorted(fields)}")
        with attempt(family.name, f"making the preset {preset}"):
            make_family(family.name, preset)


def _check_spaces(family: TaskFamily) -> None:
    for kind in ("observation_space", "action_space", "task_space"):
        with attempt(family.name, kind):
            space, again = getattr(family, kind), getattr(family, kind)
        require(isinstance(space, spaces.Space), family.name, f"{kind} is {space!r}", "return a gymnasium.spaces.Space")
        require(space == again, family.name, f"{kind} differs from call to call", "return equal spaces")
    with attempt(family.name, "action_space"):
        require_actions(family.action_space)
    require(
        isinstance(family.task_space, spaces.Dict) and len(family.task_space) > 0,
        family.name,
        "task_space names no parameter",
        "return a gymnasium.spaces.Dict with one entry for each parameter of a task",
    )


def _check_sampling(family: TaskFamily) -> None:
    before = _global_streams()
    with attempt(family.name, "sample_tasks"):
        tasks, again = (family.sample_tasks(TASKS, generator("check")) for _ in range(2))
    require(
        _global_streams() == before, family.name, "sample_tasks draws from the global stream of torch or NumPy", DRAW
    )
    _require_tasks(family, tasks, "sample_tasks", TASKS)
    require(
        len(tasks) == TASKS, family.name, f"sample_tasks returns {len(tasks)} tasks of {TASKS}", "return all of them"
    )
    same = all(torch.equal(tasks[key], again[key]) for key in tasks.keys())
    require(same, family.name, "sample_tasks gives other tasks for the same seed", DRAW)
    require(len(_rows(tasks)) > 1, family.name, f"all of {TASKS} sampled tasks are the same", DRAW)
    with attempt(family.name, "make_task of a sampled task"):
        made = family.make_task({str(key): tasks[key][0].numpy() for key in tasks.keys()})
    equal = all(torch.equal(made[key], tasks[key][:1]) for key in tasks.keys())
    require(equal, family.name, "make_task changes the values it is given", "return them as a task [1]")


def _global_streams() -> tuple[bytes, bytes]:
    """Return the states of the global generators of torch and NumPy."""
    numpy: Any = np.random.get_state()  # noqa: NPY002
    return torch.get_rng_state().numpy().tobytes(), numpy[1].tobytes()


def _require_tasks(family: TaskFamily, tasks: Any, source: str, count: int, inside: bool = True) -> None:
    """Check that ``source`` returned 1 to ``count`` tasks; ``inside``: within the bounds of the task space."""
    require(isinstance(tasks, TensorDict), family.name, f"{source} returns no TensorDict", "return one of CPU tensors")
    size = list(tasks.batch_size)
    one_axis = len(size) == 1 and 0 < size[0] <= count
    require(one_axis, family.name, f"{source} returns tasks {size} where {count} are asked for", f"return [{count}]")
    keys, expected = sorted(map(str, tasks.keys())), sorted(family.task_space)
    require(keys == expected, family.name, f"{source} returns the parameters {keys}", f"the task space has {expected}")
    for key, space in family.task_space.items():
        value = tasks[key]
        wanted = torch.as_tensor(np.zeros((), space.dtype)).dtype
        shape = (len(tasks), *(space.shape or ()))
        found = f"{value.dtype} {list(value.shape)} on {value.device}"
        fits = value.device.type == "cpu" and value.dtype == wanted and tuple(value.shape) == shape
        require(fits, family.name, f"{source} returns {key} as {found}", f"make it {wanted} {list(shape)} on the cpu")
        outside = [row for row in value if inside and not space.contains(row.numpy())]
        text = f"{source} returns {key} = {outside[0].tolist()} outside {space}" if outside else ""
        require(not outside, family.name, text, "widen the task space, or draw inside of it")


def _check_split(family: TaskFamily) -> None:
    with attempt(family.name, "the split of its tasks"):
        own, every = family.own_split(), family.all_tasks()
        outside = family.outside_tasks(HELD_OUT, generator("check"))
    if outside is not None:
        _require_tasks(family, outside, "outside_tasks", HELD_OUT, inside=False)
    if own is not None:
        require(set(own) == set(PARTS), family.name, f"own_split has the parts {sorted(own)}", f"return {PARTS}")
        for part, tasks in own.items():
            _require_tasks(family, tasks, f"own_split, part {part},", len(tasks))
        return  # a benchmark's parts may share tasks
    if every is not None:
        _require_tasks(family, every, "all_tasks", len(every))
        require(len(_rows(every)) == len(every), family.name, "all_tasks has a task twice", "list each task once")
    _check_parts(family)
    with attempt(family.name, "the split of its tasks"):
        split = TaskSplit(family)
        drawn = [split.train_tasks(TASKS, "check"), *(split.held_out_tasks(part, HELD_OUT) for part in PARTS[1:])]
    shared = set.intersection(*map(_rows, drawn[:2])) | (_rows(drawn[2]) & (_rows(drawn[0]) | _rows(drawn[1])))
    advice = "list the tasks in all_tasks, or define part_of by metarl.families.splits.hashed_part"
    require(not shared, family.name, f"training and held-out tasks share {len(shared)} tasks", advice)


def _check_parts(family: TaskFamily) -> None:
    tasks = family.sample_tasks(TASKS, generator("check parts"))
    with attempt(family.name, "part_of"):
        parts = family.part_of(tasks, 0)
        alone = None if parts is None else family.part_of(tasks[:1], 0)
    if parts is None or alone is None:
        return
    valid = parts.dtype == torch.int64 and parts.shape == (TASKS,) and bool(((parts >= 0) & (parts <= 2)).all())
    require(valid, family.name, "part_of returns no parts", f"return int64 [{TASKS}] of 0, 1 and 2")
    steady = torch.equal(parts[:1], alone)
    require(steady, family.name, "the part of a task depends on the tasks beside it", "use its numbers and seed alone")


def _check_by_others(family: TaskFamily) -> None:
    """Run the environment checkers of Gymnasium and, if installed, of Stable-Baselines3."""
    checkers: dict[str, Callable[[Any], None]] = {"Gymnasium": lambda env: check_env(env, skip_render_check=True)}
    if find_spec("stable_baselines3") is not None:
        from stable_baselines3.common.env_checker import check_env as check_env_for_sb3

        checkers["Stable-Baselines3"] = lambda env: check_env_for_sb3(env, skip_render_check=True)
    for owner, checker in checkers.items():
        env = TaskEnv(family)
        with warnings.catch_warnings(), attempt(family.name, f"the environment checker of {owner}"):
            warnings.simplefilter("ignore")
            checker(env)
        env.close()


def _rows(tasks: TensorDict) -> set[bytes]:
    """Return the distinct tasks among ``[count]``, as bytes."""
    columns: list[Tensor] = [tasks[key] for key in sorted(tasks.keys())]
    return {b"".join(column[row].numpy().tobytes() for column in columns) for row in range(len(tasks))}
