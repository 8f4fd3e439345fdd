"""Environments by name, as ``gymnasium.make`` and ``gymnasium.make_vec`` make them."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import torch
from gymnasium.vector import AutoresetMode
from tensordict import TensorDict

from metarl.errors import InputError
from metarl.families.family import TaskFamily, make_family
from metarl.worlds.numpy_env import NumpyVectorEnv, TaskEnv
from metarl.worlds.vector_env import RENDERING, TaskVectorEnv


class UnexpectedArgument(InputError, TypeError):
    """An argument that no environment of the family has; a TypeError, which libraries that make environments catch."""


def make_env(family: str, preset: str | None = None, render_mode: str | None = None, **arguments: Any) -> TaskEnv:
    """Make a single environment, as ``gymnasium.make("metarl/HalfCheetahVel-v0", velocity=1.5)`` does.

    Args:
        family: name of the family.
        preset: one of its presets.
        render_mode: ``rgb_array``, or None.
        arguments: task parameters (all of them, or none to draw a task at each reset) and settings of the family.

    Raises:
        InputError: for unknown names and values out of range.
    """
    return TaskEnv(*_split(family, preset, arguments), render_mode)


# Where gymnasium.make looks for render modes, to open a window for render_mode="human".
make_env.metadata = RENDERING  # type: ignore[attr-defined]


def make_vector_env(
    num_envs: int,
    family: str,
    preset: str | None = None,
    output: Literal["numpy", "torch"] = "numpy",
    device: torch.device | str = "cpu",
    autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
    render_mode: str | None = None,
    **arguments: Any,
) -> NumpyVectorEnv | TaskVectorEnv:
    """Make a vector environment, as ``gymnasium.make_vec("metarl/HalfCheetahVel-v0", num_envs=64)`` does.

    Args:
        num_envs: number of environments.
        family: name of the family.
        preset: one of its presets.
        output: NumPy arrays, or torch tensors on the device.
        device: of the tensors; NumPy arrays are on the CPU.
        autoreset_mode: when an ended environment starts its next episode; as in Gymnasium's own vector environments, it
            is the next step unless set.
        render_mode: ``rgb_array``, or None.
        arguments: task parameters (the same task everywhere) and settings of the family.

    Raises:
        InputError: for unknown names and values out of range.
    """
    if output not in ("numpy", "torch"):
        raise InputError(f"output must be numpy or torch, not {output!r}")
    if output == "numpy" and torch.device(device).type != "cpu":
        raise InputError(f'NumPy arrays are on the CPU, not on {device}; use output="torch"')
    mode = _autoreset_mode(autoreset_mode)
    made, task = _split(family, preset, arguments)
    env: NumpyVectorEnv | TaskVectorEnv = (
        NumpyVectorEnv(made, num_envs, mode, render_mode)
        if output == "numpy"
        else TaskVectorEnv(made, num_envs, device, mode, render_mode)
    )
    if task is not None:
        env.set_tasks(task.expand(num_envs))
    return env


def _autoreset_mode(given: AutoresetMode | str) -> AutoresetMode:
    """Return an autoreset mode, given as itself or by its value, as in Gymnasium's ``SyncVectorEnv``."""
    try:
        return AutoresetMode(given)
    except ValueError:
        names = ", ".join(repr(mode.value) for mode in AutoresetMode)
        raise InputError(f"autoreset_mode must be one of {names}, not {given!r}") from None


def _split(family: str, preset: str | None, arguments: Mapping[str, Any]) -> tuple[TaskFamily, TensorDict | None]:
    """Separate a family's settings from task parameters, which share a namespace in ``gymnasium.make``."""
    plain = make_family(family, preset)
    settings, parameters = {field.name for field in dataclasses.fields(plain)}, set(plain.task_space)  # type: ignore[arg-type]
    for name in arguments:
        if name not in settings | parameters:
            known = ", ".join(sorted(settings | parameters))
            raise UnexpectedArgument(f"{family} got an unexpected keyword argument {name!r}; it has {known}")
    task = {key: value for key, value in arguments.items() if key in parameters}
    made = make_family(family, preset, **{key: value for key, value in arguments.items() if key not in task})
    return made, made.make_task(task) if task else None
