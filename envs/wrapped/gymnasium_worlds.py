"""Families whose worlds are Gymnasium environments, stepped by Gymnasium's own vector environments on the CPU."""

import multiprocessing
import os
import signal
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, ClassVar, Literal, TypeVar, get_args

import numpy as np
import torch
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from tensordict import TensorDict
from torch import Tensor

from metarl.envs.wrapped import worker_processes
from metarl.envs.wrapped.global_streams import GlobalStreams
from metarl.envs.wrapped.worker_processes import TimedAsyncVectorEnv, exit_with
from metarl.envs.wrapped.world import EnvironmentMaker, Task, World
from metarl.errors import InputError, MetarlError, RunError
from metarl.families.family import Dynamics, Transition
from metarl.numerics.noise import draw_rows

Vectorization = Literal["sync", "async"]
Worlds = SyncVectorEnv[Any, Any] | AsyncVectorEnv[Any, Any]
Result = TypeVar("Result")


class EnvironmentFamily(EnvironmentMaker):
    """A family whose worlds are Gymnasium environments.

    Attributes:
        vectorization: ``sync`` steps all worlds in this process, ``async`` runs each world in its own process.
    """

    vectorization: Vectorization

    def dynamics(self, num_envs: int, device: torch.device) -> Dynamics:
        """Make ``num_envs`` worlds on the CPU, whose tensors live on ``device``; they start at the first reset."""
        self.check_device(device)
        if self.vectorization not in get_args(Vectorization):
            raise InputError(f"{self.name}: vectorization must be sync or async, not {self.vectorization!r}")
        return VectorDynamics(self, num_envs, device)


class VectorDynamics(Dynamics):
    """The worlds of an ``EnvironmentFamily``, stepped by one of Gymnasium's vector environments."""

    capturable: ClassVar[bool] = False

    def __init__(self, family: EnvironmentFamily, num_envs: int, device: torch.device) -> None:
        self._family, self._num_envs, self._device = family, num_envs, device
        self._worlds: Worlds | None = None
        self._render_mode: str | None = None
        self._observations = np.empty(0, np.float32)
        # Worlds in separate processes have those processes' global generators.
        self._streams = GlobalStreams() if family.vectorization == "sync" else None

    def prepare_rendering(self) -> None:
        """Make the environments with a render mode, which is otherwise left out."""
        self._render_mode = "rgb_array"

    def reset(self, tasks: TensorDict, mask: Tensor, generator: torch.Generator) -> None:
        """Start episodes where ``mask`` is true, each with its own seed; the first reset is of all worlds."""
        seeds = draw_rows(partial(torch.randint, 2**31), mask.shape, generator, device=generator.device).tolist()
        chosen = mask.cpu().numpy()
        first = self._worlds is None
        if self._worlds is None:
            self._worlds = start_worlds(self._family, self._num_envs, self._render_mode)
            chosen = np.ones_like(chosen)
        if not chosen.any():
            return
        worlds, given = self._worlds, plain_tasks(tasks)
        self._ask(lambda: worlds.set_attr("task", given))
        with self._global_streams():
            self._observations, info = self._ask(lambda: worlds.reset(seed=seeds, options={"reset_mask": chosen}))
        _raise_failure(info)
        if first:
            self._warn_of_shown_tasks(self._ask(lambda: worlds.get_attr("shown")))

    def step(self, actions: Tensor, tasks: TensorDict, generator: torch.Generator) -> Transition:
        """Step every world whose episode is running; info has the environments' own numbers, float32 ``[B]``."""
        worlds = self._worlds
        assert worlds is not None, "reset comes before step"
        with self._global_streams():
            self._observations, rewards, _, _, info = self._ask(lambda: worlds.step(actions.cpu().numpy()))
        _raise_failure(info)
        terms = info.get("terms", {})  # Gymnasium adds a mask to each entry for the worlds that have it.
        numbers = {key: self._tensor(value).float() for key, value in terms.items() if f"_{key}" in terms}
        truncated = self._tensor(info["truncated"]) if "truncated" in info else None
        return Transition(self._tensor(rewards).float(), self._tensor(info["terminated"]), numbers, truncated)

    def observe(self) -> Tensor:
        """Return observations ``[B, ...]`` in float32, images in uint8."""
        return self._tensor(self._observations)

    def render(self, tasks: TensorDict, world: int) -> np.ndarray:
        """Return the environment's own picture, or text if it cannot render or a library is missing."""
        assert self._worlds is not None, "reset comes before render"
        if isinstance(picture := self._worlds.call("frame", world)[world], MetarlError):
            raise picture
        return super().render(tasks, world) if picture is None else picture

    def close(self) -> None:
        """Close the environments and terminate their processes."""
        if self._worlds is not None:
            self._worlds.close()
            self._worlds = None

    def _global_streams(self) -> AbstractContextManager[None]:
        """Return the context in which environments in this process use their own global generators."""
        return nullcontext() if self._streams is None else self._streams.installed()

    def _warn_of_shown_tasks(self, shown: Sequence[Mapping[str, str]]) -> None:
        """Warn about observation keys that equal a task parameter in every world and so reveal the task."""
        for key, parameter in shown[0].items():
            if all(each.get(key) == parameter for each in shown):
                warnings.warn(
                    f"{self._family.name}: the observation's {key!r} is the task's {parameter}, so a policy sees the "
                    "task; name in observation_keys what it is meant to observe",
                    stacklevel=2,
                )

    def _tensor(self, values: np.ndarray) -> Tensor:
        return torch.tensor(values, device=self._device)  # a copy, because the vector environment reuses its arrays

    def _ask(self, call: Callable[[], Result]) -> Result:
        """Call the worlds; if a process died, terminate the others, as the vector environment would wait forever."""
        try:
            return call()
        except (EOFError, ConnectionError, multiprocessing.TimeoutError) as error:
            hung = isinstance(error, multiprocessing.TimeoutError)
            assert isinstance(self._worlds, AsyncVectorEnv)
            for process in self._worlds.processes:
                process.kill()
                process.join()
            self._worlds.closed = True
            self._worlds = None
        if hung:
            seconds = f"{worker_processes.STEP_SECONDS:.0f} s"
            raise RunError(f"{self._family.name}: a world has not responded for {seconds}; its reset or step may hang")
        raise RunError(
            f"{self._family.name}: the process of a world died; {self._num_envs} worlds may need too much memory: use "
            "fewer tasks or episodes"
        )


def start_worlds(family: EnvironmentFamily, count: int, render_mode: str | None = None) -> Worlds:
    """Return the vector environment of ``count`` worlds."""
    makers = [partial(_world, family, index, render_mode, os.getpid()) for index in range(count)]
    kind = SyncVectorEnv if family.vectorization == "sync" else TimedAsyncVectorEnv
    return kind(makers, copy=False, autoreset_mode=AutoresetMode.DISABLED)


def plain_tasks(tasks: TensorDict) -> list[Task]:
    """Return tasks ``[B]`` as dicts of Python numbers, or arrays for vector parameters."""
    columns = {str(key): tasks[key].cpu().numpy() for key in tasks.keys()}
    return [
        {key: column[row].item() if column.ndim == 1 else column[row].copy() for key, column in columns.items()}
        for row in range(len(tasks))
    ]


def _world(family: EnvironmentFamily, index: int, render_mode: str | None, main_process: int) -> World:
    if os.getpid() != main_process:
        # The main process may want to finish its iteration before it stops its workers, as training does.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        exit_with(main_process)
    return World(family, index, render_mode)


def _raise_failure(info: dict[str, Any]) -> None:
    # Removed from everything that the traceback refers to: Python does not detect a reference cycle through an array of
    # objects, and would never free the worlds.
    failures = [failure for failure in info.pop("failure", ()) if failure is not None]
    if failures:
        raise failures.pop(0)
