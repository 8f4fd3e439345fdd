"""A client of ``metarl serve``: acts in a task over HTTP, and gives feedback.

In the loop of an environment::

    with Client("http://127.0.0.1:8000").task("walk on sand") as task:
        observation, _ = env.reset()
        ended = False
        while not ended:
            observation, reward, terminated, truncated, _ = env.step(task.act(observation))
            ended = task.feedback(reward, terminated, truncated, observation).ended
"""

import time
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import httpx
import numpy as np

from metarl.errors import InputError, RunError

# Seconds between attempts to reach a server that does not answer.
PAUSE = 0.2


@dataclass(frozen=True)
class Outcome:
    """What feedback changed.

    Attributes:
        task: id of the task.
        episode: number of the episode that it was about.
        step: number of the step in it.
        ended: whether the episode is complete.
        returns: of the complete episode, one for each of those side by side.
        adapted: whether the learner has adapted.
        adaptation_steps: so far.
        problem: why an adaptation that was due left the learner as it was.
    """

    task: str
    episode: int
    step: int
    ended: bool
    returns: list[float] | None
    adapted: bool
    adaptation_steps: int
    problem: str | None


class Client:
    """A connection to a server.

    Args:
        url: where it listens.
        token: its bearer token, if it has one.
        patience: seconds for which a server that is away, or has lost its database, is asked again. Nothing is taken
            twice.
        http: an httpx client to use, with certificates or proxies of your own.
    """

    def __init__(
        self, url: str, token: str | None = None, patience: float = 10.0, http: httpx.Client | None = None
    ) -> None:
        self._http = http or httpx.Client(base_url=url, timeout=60.0)
        if token is not None:
            self._http.headers["Authorization"] = f"Bearer {token}"
        self._patience = patience

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def health(self) -> dict[str, Any]:
        """Return what the server serves."""
        found: dict[str, Any] = self.call("GET", "/health")
        return found

    def tasks(self, limit: int = 100) -> list[dict[str, Any]]:
        """Return a summary of the newest tasks."""
        found: list[dict[str, Any]] = self.call("GET", f"/tasks?limit={limit}")
        return found

    def task(
        self,
        description: str = "",
        parameters: dict[str, Any] | None = None,
        episodes: int | None = None,
        adapt_after: int | None = None,
        seed: int | None = None,
    ) -> "RemoteTask":
        """Make a new task.

        Args:
            description: for people.
            parameters: the task's, needed only by baselines that simulate or observe it.
            episodes: E episodes side by side, with arrays ``[E, ...]``; by default one, without that axis.
            adapt_after: complete episodes between adaptations; by default as in training.
            seed: of all random numbers of the task.

        Raises:
            InputError: when the server refuses it.
            RunError: when the server does not answer.
        """
        asked: dict[str, Any] = {"description": description}
        for name, value in (("episodes", episodes), ("adapt_after", adapt_after), ("seed", seed)):
            asked |= {} if value is None else {name: value}
        if parameters is not None:
            asked["parameters"] = {name: np.asarray(value).tolist() for name, value in parameters.items()}
        return RemoteTask(self, self.call("POST", "/tasks", asked, again=False))

    def open(self, task: str) -> "RemoteTask":
        """Continue the task with that id."""
        return RemoteTask(self, self.call("GET", f"/tasks/{task}"))

    def call(self, method: str, path: str, content: dict[str, Any] | None = None, again: bool = True) -> Any:
        """Make a request; return its answer.

        Args:
            method: HTTP method.
            path: with the query.
            content: sent as JSON.
            again: whether it is made again while the server does not answer.

        Raises:
            InputError: with the server's line, when it refuses.
            RunError: when it does not answer within the client's patience.
        """
        deadline = time.monotonic() + (self._patience if again else 0.0)
        while True:
            try:
                answer = self._http.request(method, path, json=content)
                if answer.status_code != 503:
                    return _content(answer)
                problem = _line(answer)
            except httpx.TransportError as error:
                problem = f"the server at {self._http.base_url} does not answer: {error}"
            except ValueError as error:  # NaN is not JSON
                raise InputError(f"the request cannot be sent: {error}") from None
            if time.monotonic() >= deadline:
                raise RunError(problem)
            time.sleep(PAUSE)


class RemoteTask:
    """A task on the server. It stays there when this is closed; ``Client.open`` continues it.

    Attributes:
        id: of the task.
        episode: number of the episode that is running or starts next.
        step: number of the step in it that is next, or waits for feedback.
    """

    def __init__(self, client: Client, state: dict[str, Any]) -> None:
        self._client = client
        self.id: str = state["id"]
        self.episode: int = state["episode"]
        self.step: int = state["step"]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def act(self, observation: Any = None, deterministic: bool | None = None, seed: int | None = None) -> Any:
        """Return the next action, in the env's units; asked again before feedback, it is the same.

        Args:
            observation: needed at an episode's start; later it may be left out, as feedback has given it.
            deterministic: act by the policy's mode in the episode that starts.
            seed: of the draws in the episode that starts.

        Returns:
            An array, or an integer of a Discrete space.

        Raises:
            InputError: when the server refuses.
            RunError: when it does not answer.
        """
        asked: dict[str, Any] = {"task": self.id}
        if observation is not None:
            asked["observation"] = np.asarray(observation).tolist()
        for name, value in (("deterministic", deterministic), ("seed", seed)):
            asked |= {} if value is None else {name: value}
        answer = self._client.call("POST", "/execute_task", asked)
        self.episode, self.step = answer["episode"], answer["step"]
        action = answer["action"]
        return np.asarray(action) if isinstance(action, list) else action

    def feedback(self, reward: Any, terminated: Any, truncated: Any, next_observation: Any) -> Outcome:
        """Give what ``env.step`` returned for the last action; the learner adapts when it is time.

        Raises:
            InputError: when the server refuses.
            RunError: when it does not answer.
        """
        names = ("reward", "terminated", "truncated", "next_observation")
        values = (reward, terminated, truncated, next_observation)
        given = {name: np.asarray(value).tolist() for name, value in zip(names, values, strict=True)}
        return self._give({**given, "step": self.step})

    def recorded(self, observations: Any, actions: Any, rewards: Any, terminated: bool) -> Outcome:
        """Give a whole episode of T steps that was recorded elsewhere.

        Args:
            observations: ``[T + 1, *observation]``, including the one after the last step.
            actions: ``[T, *action]``, in the env's units.
            rewards: ``[T]``.
            terminated: whether the last step terminated the episode; otherwise it truncated it.

        Raises:
            InputError: when the server refuses; gradient-based learners adapt to their own actions only.
            RunError: when it does not answer.
        """
        arrays = {"observations": observations, "actions": actions, "rewards": rewards}
        whole = {name: np.asarray(value).tolist() for name, value in arrays.items()}
        return self._give({"recorded": {**whole, "terminated": bool(terminated)}})

    def state(self) -> dict[str, Any]:
        """Return everything about the task: its episodes, returns and adaptation steps, and what it waits for."""
        found: dict[str, Any] = self._client.call("GET", f"/tasks/{self.id}")
        return found

    def delete(self) -> None:
        """Delete the task with all of its episodes."""
        self._client.call("DELETE", f"/tasks/{self.id}", again=False)

    def _give(self, content: dict[str, Any]) -> Outcome:
        given = {**content, "task": self.id, "episode": self.episode}
        outcome = Outcome(**self._client.call("POST", "/feedback", given))
        ended = outcome.ended
        self.episode, self.step = (outcome.episode + 1, 0) if ended else (outcome.episode, outcome.step + 1)
        return outcome


def _content(answer: httpx.Response) -> Any:
    if answer.is_success:
        return answer.json() if answer.content else None
    raise (RunError if answer.is_server_error else InputError)(_line(answer))


def _line(answer: httpx.Response) -> str:
    """Return the one line of a refusal."""
    try:
        return str(answer.json()["detail"])
    except (ValueError, KeyError, TypeError):
        return f"the server answered {answer.status_code} {answer.reason_phrase}"
