"""One Gymnasium environment whose task may change at every reset.

A ``World`` runs in the main process or in its own worker process, where it is the only part of a family: it does not
use torch, whose threads do not survive a fork.
"""

import inspect
import traceback
from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.error import DependencyNotInstalled

from metarl.envs.wrapped.attributes import GUIDE, NUMBERS, number_at, same_numbers
from metarl.envs.wrapped.global_streams import seed_global_streams
from metarl.errors import InputError, MetarlError, RunError
from metarl.families.family import TaskFamily
from metarl.families.spaces import is_image, one_line

Task = dict[str, Any]
Environment = gymnasium.Env[Any, Any]
Step = tuple[np.ndarray, float, bool, bool, dict[str, Any]]


class EnvironmentMaker(TaskFamily):
    """A family that makes Gymnasium environments and gives them their tasks.

    These methods receive tasks as Python numbers, or NumPy arrays for vector parameters.
    """

    @property
    @abstractmethod
    def constructor_parameters(self) -> Collection[str]:
        """The task parameters that an environment is made with; it is recreated when one of them changes."""

    @abstractmethod
    def make(self, arguments: Task, render_mode: str | None = None) -> Environment:
        """Make an environment without a time limit.

        Args:
            arguments: the ``constructor_parameters`` of its task.
            render_mode: ``rgb_array`` if it will be rendered; else None.
        """

    @abstractmethod
    def apply(self, env: Environment, task: Task) -> None:
        """Set the whole task of an environment, before each of its resets.

        Raises:
            InputError: if the environment has no such parameter.
        """

    def reset_arguments(self, task: Task, seed: int | None) -> dict[str, Any]:
        """Return the arguments of the environment's ``reset``."""
        return {"seed": seed}

    def lasting_values(self, env: Environment, task: Task) -> Mapping[str, Sequence[Any]]:
        """Return attributes by name, each with the values allowed after a reset; called before the reset.

        The first value is the task's.
        """
        return {}

    def shown_parameters(self, observation: Any, task: Task) -> Mapping[str, str]:
        """Return the keys of an observation that equal a task parameter, with the parameter's name."""
        return {}


class World(gymnasium.Env[np.ndarray, Any]):
    """One environment with a task, whose episode ends when it terminates, is truncated or reaches the horizon.

    A world whose episode has ended does not change. It never raises, and reports ends and failures only in its info
    (``terminated``, ``truncated``, ``failure``, ``terms``): a vector environment refuses to step an ended episode, and
    an asynchronous one loses the process of a failed one.

    Attributes:
        task: task of the next episode.
        shown: keys of the first observation that equal a task parameter, with the parameter's name.

    Args:
        family: family that makes the environment.
        index: index of the world among all.
        render_mode: ``rgb_array`` if the world will be rendered.
    """

    def __init__(self, family: EnvironmentMaker, index: int, render_mode: str | None = None) -> None:
        self.observation_space, self.action_space = family.observation_space, family.action_space
        self.task: Task = {}
        self.shown: Mapping[str, str] | None = None
        self._family, self._index, self._render_mode = family, index, render_mode
        self._env: Environment | None = None
        self._arguments: Task = {}
        self._lasting: Mapping[str, Sequence[Any]] = {}
        self._seen = np.zeros(self.observation_space.shape or (), self.observation_space.dtype)
        self._steps, self._terminated, self._truncated = 0, False, False

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        """Start an episode of ``task``; the process's global random generators get the same seed."""
        self._steps, self._terminated, self._truncated = 0, False, False
        try:
            arguments = self._family.reset_arguments(self.task, seed)
            if arguments["seed"] is not None:
                seed_global_streams(arguments["seed"])
            env = self._prepare()
            self._lasting = self._family.lasting_values(env, self.task)
            answer = env.reset(**arguments)
            if not (isinstance(answer, tuple) and len(answer) == 2 and isinstance(answer[1], dict)):
                raise self._old_api("reset does not return (observation, info)")
            self._require_lasting(env, "reset")
            self._see(env, answer[0])
            if self.shown is None:
                self.shown = self._family.shown_parameters(answer[0], self.task)
        except Exception as error:
            return self._seen, self._failure(error, "reset")
        return self._seen, {}

    def step(self, action: Any) -> Step:
        """Step with one action, unless the episode has ended."""
        reward, terms = 0.0, {}
        over = self._terminated or self._truncated or self._steps >= self._family.horizon
        if self._env is not None and not over:
            try:
                answer = self._env.step(action)
                if not (isinstance(answer, tuple) and len(answer) == 5):
                    raise self._old_api("step does not return (observation, reward, terminated, truncated, info)")
                observation, given, terminated, truncated, info = answer
                if self._steps == 0:
                    self._require_lasting(self._env, "step")
                self._see(self._env, observation)
                reward, self._terminated, self._truncated = float(given), bool(terminated), bool(truncated)
                terms = {key: float(value) for key, value in info.items() if isinstance(value, NUMBERS)}
                if "is_success" in terms:  # the name used by goal environments
                    terms.setdefault("success", terms["is_success"])
            except Exception as error:
                return self._seen, 0.0, False, False, self._failure(error, f"step {self._steps}")
            self._steps += 1
        info = {"terminated": self._terminated, "terms": terms}
        if self._truncated:  # left out otherwise, because each entry costs the vector environment more than a step
            info["truncated"] = True
        return self._seen, reward, False, False, info

    def frame(self, world: int) -> np.ndarray | MetarlError | None:
        """Return the picture of the world with that index, or the reason for its absence; None in all other worlds."""
        if world != self._index or self._env is None or self._env.render_mode is None:
            return None
        try:
            picture: Any = self._env.render()
        except DependencyNotInstalled:
            return None
        except Exception as error:
            return InputError(f"{self._family.name} cannot be rendered on this machine: {first_line(error)}")
        return None if picture is None else np.asarray(picture)

    def close(self) -> None:
        """Close the environment."""
        if self._env is not None:
            self._env.close()
            self._env = None

    def _prepare(self) -> Environment:
        """Return the environment with its task set, recreated if necessary."""
        family, task = self._family, self.task
        arguments = {key: task[key] for key in family.constructor_parameters}
        kept = self._env is not None and all(np.array_equal(arguments[key], self._arguments[key]) for key in arguments)
        if self._env is None or not kept:
            self.close()
            self._env, self._arguments = self._make(arguments), arguments
        family.apply(self._env, task)
        for kind in ("observation_space", "action_space"):
            given, expected = getattr(self._env, kind), getattr(self, kind)
            given = box_of(given) if kind == "observation_space" else given
            if given != expected:
                found = f"{one_line(given)} in the task {task_text(task)} and {one_line(expected)} in others"
                raise InputError(f"{family.name}: tasks must share their spaces, but the {kind} is {found}")
        return self._env

    def _make(self, arguments: Task) -> Environment:
        try:
            env = self._family.make(arguments, self._render_mode)
        except Exception as error:
            if self._render_mode is None or isinstance(error, MetarlError):
                raise
            mode = f"render_mode={self._render_mode!r}"
            raise InputError(
                f"{self._family.name} cannot be rendered on this machine: it cannot be made with {mode} "
                f"({first_line(error)}); training and evaluation do not need this"
            ) from error
        parameters = inspect.signature(env.unwrapped.reset).parameters
        if "seed" not in parameters and not any(each.kind is each.VAR_KEYWORD for each in parameters.values()):
            raise self._old_api("reset takes no seed")
        return env

    def _see(self, env: Environment, observation: Any) -> None:
        space = env.observation_space
        flat = observation if isinstance(space, spaces.Box) else spaces.flatten(space, observation)
        seen = np.asarray(flat, dtype=self._seen.dtype)
        if seen.shape != self._seen.shape:
            raise ValueError(f"an observation of shape {seen.shape} in a space of shape {self._seen.shape}")
        self._seen = seen

    def _require_lasting(self, env: Environment, when: str) -> None:
        """Check that the environment has kept the values set by its task, so that the task has an effect."""
        for key, allowed in self._lasting.items():
            found = number_at(env, key)
            if found is not None and any(same_numbers(found, value) for value in allowed):
                continue
            texts = [np.array2string(np.asarray(value), precision=6) for value in (allowed[0], found)]
            ways = (
                f"use delivery={{{key!r}: 'reset option'}} if reset reads it from its options, or set in a subclass's "
                "apply what it is drawn from"
                if when == "reset"
                else f"if it is an initial value that the environment changes, add it to unchecked=({key!r},)"
            )
            raise InputError(
                f"{self._family.name}: the task has no effect: {key} is {texts[1]} after {when}, and was set to "
                f"{texts[0]}; {ways} ({GUIDE})"
            )

    def _old_api(self, what: str) -> InputError:
        return InputError(
            f"{self._family.name} has the API of Gym before 0.26: its {what}; define reset(self, *, seed=None, "
            "options=None) -> (observation, info) and step(self, action) -> (observation, reward, terminated, "
            "truncated, info)"
        )

    def _failure(self, error: Exception, when: str) -> dict[str, Any]:
        if not isinstance(error, MetarlError):
            where = f"{self._family.name} failed at {when}, in the task {task_text(self.task)}"
            frames = traceback.extract_tb(error.__traceback__)
            own = [frame for frame in frames[1:] if "site-packages" not in frame.filename]
            place = (own or frames)[-1]
            error = RunError(f"{where}: {first_line(error)} ({place.filename}:{place.lineno})")
        error.add_note(traceback.format_exc())  # Unlike a cause, a note survives pickling through a pipe.
        return {"failure": error, "terminated": False}


def box_of(space: spaces.Space[Any]) -> spaces.Box:
    """Return the Box of observations of ``space``: unchanged for images, else float32, flattened if not a Box.

    Raises:
        InputError: for a space whose elements do not have a fixed size.
    """
    flat: spaces.Space[Any] = space
    if not isinstance(space, spaces.Box):
        with suppress(NotImplementedError):
            flat = spaces.flatten_space(space)
    if not isinstance(flat, spaces.Box):
        raise InputError(f"observations must have a fixed size, unlike elements of {one_line(space)}")
    if is_image(flat):
        return flat
    with np.errstate(over="ignore"):  # Bounds beyond float32 become infinite.
        return spaces.Box(flat.low.astype(np.float32), flat.high.astype(np.float32), dtype=np.float32)


def task_text(task: Task) -> str:
    """Return a task as text."""
    return ", ".join(f"{key}={np.array2string(np.asarray(value), precision=6)}" for key, value in task.items())


def first_line(error: Exception) -> str:
    """Return an error's type, and the first line of its message."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
