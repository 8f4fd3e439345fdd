"""Families whose worlds are Gymnasium environments, stepped by Gymnasium's own vector environments on the CPU.

A ``World`` is one environment whose task may change at every reset. It lives in this process (``sync``) or in one of
its own (``async``), and is the only part of a family that runs there: it does not use torch, whose threads do not
survive a fork.
"""

import multiprocessing
import os
import signal
import traceback
from abc import abstractmethod
from collections.abc import Callable, Collection
from contextlib import suppress
from functools import partial
from typing import Any, ClassVar, Literal, TypeVar, get_args

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.error import DependencyNotInstalled
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from tensordict import TensorDict
from torch import Tensor

from metarl.envs.wrapped import worker_processes
from metarl.envs.wrapped.worker_processes import TimedAsyncVectorEnv, exit_with
from metarl.errors import InputError, MetarlError, RunError
from metarl.family import Dynamics, TaskFamily, Transition
from metarl.spaces import is_image, one_line

Vectorization = Literal["sync", "async"]
Task = dict[str, Any]
Environment = gymnasium.Env[Any, Any]
Result = TypeVar("Result")
NUMBERS = (bool, int, float, np.bool_, np.number)


class EnvironmentFamily(TaskFamily):
    """A family that makes Gymnasium environments and gives them their tasks.

    A task reaches these methods as Python numbers, and NumPy arrays where a parameter has axes.

    Attributes:
        vectorization: ``sync`` steps all worlds in this process, ``async`` gives each world a process of its own.
    """

    vectorization: Vectorization

    @property
    @abstractmethod
    def constructor_parameters(self) -> Collection[str]:
        """The task parameters that an environment is made with; it is made anew when one of them changes."""

    @abstractmethod
    def make(self, arguments: Task) -> Environment:
        """Make an environment without a time limit, given the ``constructor_parameters`` of its task."""

    @abstractmethod
    def apply(self, env: Environment, task: Task) -> None:
        """Give an environment its whole task, right before each of its resets.

        Raises:
            InputError: when the environment has no such parameter.
        """

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
        self._worlds: SyncVectorEnv[Any, Any] | AsyncVectorEnv[Any, Any] | None = None
        self._observations = np.empty(0, np.float32)

    def reset(self, tasks: TensorDict, mask: Tensor, generator: torch.Generator) -> None:
        """Start episodes under ``mask``, each from a seed of its own; the first reset is one of all worlds."""
        seeds = torch.randint(2**31, mask.shape, generator=generator, device=generator.device).tolist()
        chosen = mask.cpu().numpy()
        if self._worlds is None:
            self._worlds, chosen = start_worlds(self._family, self._num_envs), np.ones_like(chosen)
        if not chosen.any():
            return
        worlds, given = self._worlds, plain_tasks(tasks)
        self._ask(lambda: worlds.set_attr("task", given))
        self._observations, info = self._ask(lambda: worlds.reset(seed=seeds, options={"reset_mask": chosen}))
        _raise_failure(info)

    def step(self, actions: Tensor, tasks: TensorDict, generator: torch.Generator) -> Transition:
        """Step every world whose episode goes on; info has the environments' own numbers, float32 ``[B]``."""
        worlds = self._worlds
        assert worlds is not None, "reset comes before step"
        self._observations, rewards, _, _, info = self._ask(lambda: worlds.step(actions.cpu().numpy()))
        _raise_failure(info)
        terms = info.get("terms", {})  # Beside each entry Gymnasium puts the mask of the worlds that have it.
        numbers = {key: self._tensor(value).float() for key, value in terms.items() if f"_{key}" in terms}
        return Transition(self._tensor(rewards).float(), self._tensor(info["terminated"]), numbers)

    def observe(self) -> Tensor:
        """Return observations ``[B, ...]`` in float32, those of images in uint8."""
        return self._tensor(self._observations)

    def render(self, tasks: TensorDict, world: int) -> np.ndarray:
        """Return the environment's own picture; as text where it draws none, or what it draws with is not installed."""
        assert self._worlds is not None, "reset comes before render"
        if isinstance(picture := self._worlds.call("frame", world)[world], MetarlError):
            raise picture
        return super().render(tasks, world) if picture is None else picture

    def close(self) -> None:
        """Close the environments and end their processes."""
        if self._worlds is not None:
            self._worlds.close()
            self._worlds = None

    def _tensor(self, values: np.ndarray) -> Tensor:
        return torch.tensor(values, device=self._device)  # a copy: the vector environment goes on writing

    def _ask(self, call: Callable[[], Result]) -> Result:
        """Call the worlds; where a process died, end the others, for the vector environment waits for it forever."""
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
            raise RunError(f"{self._family.name}: a world has not answered for {worker_processes.STEP_SECONDS:.0f} s")
        raise RunError(f"{self._family.name}: the process of a world died; {self._num_envs} may be too many for memory")


class World(gymnasium.Env[np.ndarray, Any]):
    """One environment with a task, whose episode is over when it terminates or reaches the horizon.

    A world that is over stays as it is. It never raises, and says only in its info that it ended (``terminated``,
    ``failure``, ``terms``): a vector environment refuses to go on with an ended episode, and an asynchronous one
    loses the process of a failed one.

    Attributes:
        task: of the next episode.
    """

    def __init__(self, family: EnvironmentFamily, index: int) -> None:
        self.observation_space, self.action_space = family.observation_space, family.action_space
        self.task: Task = {}
        self._family, self._index = family, index
        self._env: Environment | None = None
        self._arguments: Task = {}
        self._seen = np.zeros(self.observation_space.shape or (), self.observation_space.dtype)
        self._steps, self._terminated = 0, False

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        """Start an episode of ``task``."""
        self._steps, self._terminated = 0, False
        try:
            env = self._prepare()
            self._see(env, env.reset(seed=seed)[0])
        except Exception as error:
            return self._seen, self._failure(error, "reset")
        return self._seen, {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Advance by one action, unless the episode is over."""
        reward, terms = 0.0, {}
        if self._env is not None and not self._terminated and self._steps < self._family.horizon:
            try:
                observation, given, terminated, truncated, info = self._env.step(action)
                self._see(self._env, observation)
                reward, self._terminated = float(given), bool(terminated)
                self._refuse_own_end(bool(truncated))
                terms = {key: float(value) for key, value in info.items() if isinstance(value, NUMBERS)}
            except Exception as error:
                return self._seen, 0.0, False, False, self._failure(error, f"step {self._steps}")
            self._steps += 1
        return self._seen, reward, False, False, {"terminated": self._terminated, "terms": terms}

    def frame(self, world: int) -> np.ndarray | MetarlError | None:
        """Return the picture of the world with that index, or why there is none; None in all other worlds."""
        if world != self._index or self._env is None or self._env.render_mode is None:
            return None
        try:
            picture: Any = self._env.render()
        except DependencyNotInstalled:
            return None
        except Exception as error:
            return InputError(f"{self._family.name} cannot be drawn on this machine: {first_line(error)}")
        return None if picture is None else np.asarray(picture)

    def close(self) -> None:
        """Close the environment."""
        if self._env is not None:
            self._env.close()
            self._env = None

    def _prepare(self) -> Environment:
        family, task = self._family, self.task
        arguments = {key: task[key] for key in family.constructor_parameters}
        kept = self._env is not None and all(np.array_equal(arguments[key], self._arguments[key]) for key in arguments)
        if self._env is None or not kept:
            self.close()
            self._env, self._arguments = family.make(arguments), arguments
        family.apply(self._env, task)
        for kind in ("observation_space", "action_space"):
            given, expected = getattr(self._env, kind), getattr(self, kind)
            given = box_of(given) if kind == "observation_space" else given
            if given != expected:
                found = f"{one_line(given)} in the task {task_text(task)} and {one_line(expected)} in others"
                raise InputError(f"{family.name}: tasks must share their spaces, but the {kind} is {found}")
        return self._env

    def _see(self, env: Environment, observation: Any) -> None:
        space = env.observation_space
        flat = observation if isinstance(space, spaces.Box) else spaces.flatten(space, observation)
        seen = np.asarray(flat, dtype=self._seen.dtype)
        if seen.shape != self._seen.shape:
            raise ValueError(f"an observation of shape {seen.shape} in a space of shape {self._seen.shape}")
        self._seen = seen

    def _refuse_own_end(self, truncated: bool) -> None:
        taken = self._steps + 1
        if truncated and not self._terminated and taken < self._family.horizon:
            own = f"the environment itself cuts its episodes after {taken} steps"
            raise RunError(f"{self._family.name}: {own}; set the horizon to at most {taken}")

    def _failure(self, error: Exception, when: str) -> dict[str, Any]:
        if not isinstance(error, MetarlError):
            where = f"{self._family.name} failed at {when}, in the task {task_text(self.task)}"
            error = RunError(f"{where}: {first_line(error)}")
        error.add_note(traceback.format_exc())  # Unlike a cause, a note comes through a pipe.
        return {"failure": error, "terminated": False}


def start_worlds(family: EnvironmentFamily, count: int) -> SyncVectorEnv[Any, Any] | AsyncVectorEnv[Any, Any]:
    """Return the vector environment of ``count`` worlds."""
    makers = [partial(_world, family, index, os.getpid()) for index in range(count)]
    kind = SyncVectorEnv if family.vectorization == "sync" else TimedAsyncVectorEnv
    return kind(makers, copy=False, autoreset_mode=AutoresetMode.DISABLED)


def plain_tasks(tasks: TensorDict) -> list[Task]:
    """Return tasks ``[B]`` as dicts of Python numbers, and of arrays where a parameter has axes."""
    columns = {str(key): tasks[key].cpu().numpy() for key in tasks.keys()}
    return [
        {key: column[row].item() if column.ndim == 1 else column[row].copy() for key, column in columns.items()}
        for row in range(len(tasks))
    ]


def box_of(space: spaces.Space[Any]) -> spaces.Box:
    """Return the Box of observations of ``space``: images stay as they are, others are float32, flat if no Box.

    Raises:
        InputError: for a space whose elements have no fixed number of numbers.
    """
    flat: spaces.Space[Any] = space
    if not isinstance(space, spaces.Box):
        with suppress(NotImplementedError):
            flat = spaces.flatten_space(space)
    if not isinstance(flat, spaces.Box):
        raise InputError(f"observations must be a fixed number of numbers, not elements of {one_line(space)}")
    if is_image(flat):
        return flat
    with np.errstate(over="ignore"):  # Bounds beyond float32 are none.
        return spaces.Box(flat.low.astype(np.float32), flat.high.astype(np.float32), dtype=np.float32)


def task_text(task: Task) -> str:
    """Return a task as text."""
    return ", ".join(f"{key}={np.array2string(np.asarray(value), precision=6)}" for key, value in task.items())


def _world(family: EnvironmentFamily, index: int, main_process: int) -> World:
    if os.getpid() != main_process:
        # The main process may want to finish what it has begun before it stops its workers, as training does.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        exit_with(main_process)
    return World(family, index)


def _raise_failure(info: dict[str, Any]) -> None:
    # Popped from everything that a traceback leads to: through an array of objects Python does not see a cycle, and
    # would never let go of the worlds.
    failures = [failure for failure in info.pop("failure", ()) if failure is not None]
    if failures:
        raise failures.pop(0)


def first_line(error: Exception) -> str:
    """Return an error's kind, and what it says first."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
