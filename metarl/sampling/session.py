"""A learner in use: it acts in episodes of some tasks and adapts to them, whatever code steps the environments."""

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from tensordict import TensorDict
from torch import Tensor

from metarl.devices.processes import Shard
from metarl.errors import InputError
from metarl.families.spaces import Spaces, is_bounded_box, observed, observed_space
from metarl.learning.learner import Learner, OpenState
from metarl.rollouts.rollout import Rollout
from metarl.sampling.episodes import RunningEpisodes, join_episodes, require_finite
from metarl.seeding import derive_seed
from metarl.validation import require_count

# Steps to allocate when the horizon is unknown.
FIRST_CAPACITY = 128


class Session:
    """A learner acting in E parallel episodes of each of N tasks, or in one environment.

    Each round is ``open``, then ``act`` and ``observe`` until all episodes have ended, then ``adapt``::

        observation, _ = env.reset()
        session.open()
        while not session.ended:
            observation, reward, terminated, truncated, _ = env.step(session.act(observation))
            session.observe(observation, reward, terminated, truncated)
        session.adapt()

    Rounds without ``adapt`` between them start from the same state. They are kept, and the next ``adapt`` uses all of
    them; ``begin`` discards them. The learner itself is never changed.

    Observations, rewards and actions of N tasks are ``[N, E, ...]``; with one environment these axes are absent.
    Episodes may end at different steps: pass all rows until every episode has ended; values after a row's end are
    ignored. Actions are in the units of the action space, as ``env.step`` takes them; rollouts hold the policy's.
    Actions are tensors if observations are, and NumPy arrays otherwise.

    Attributes:
        learner: the one that acts.
        ended: whether no episode is running.
        family: the task family or environment, for its spaces.
        shape: N and E.
        shard: the N tasks among those of all processes.

    Args:
        learner: trained or not.
        family: the task family, as the learner sees it, or an environment with the same spaces.
        tasks: the number of tasks N, or their parameters ``[N]``; None for one environment.
        episodes: E; of a learner that does not pool episodes, the number of trials of each task.
        seed: of everything that the learner draws.
        device: where the learner is.
        shard: the N tasks among those of all processes; by default they are all that there are.

    Raises:
        InputError: when a count is below 1.
    """

    def __init__(
        self,
        learner: Learner,
        family: Spaces,
        tasks: TensorDict | int | None = None,
        episodes: int = 1,
        seed: int = 0,
        device: torch.device | str = "cpu",
        shard: Shard | None = None,
    ) -> None:
        count = len(tasks) if isinstance(tasks, TensorDict) else (1 if tasks is None else tasks)
        require_count("tasks", count)
        require_count("episodes", episodes)
        self.learner = learner
        self.family, self._seed, self._device = family, seed, torch.device(device)
        self.shape = (count, episodes)
        self.shard = shard or Shard(0, count, count)
        self._plain = tasks is None
        if self._plain and episodes > 1:
            raise InputError(f"one environment runs one episode at a time; pass tasks=1 for {episodes} in parallel")
        self._opened = 0
        self.begin(tasks if isinstance(tasks, TensorDict) else None)

    def begin(self, tasks: TensorDict | None = None) -> None:
        """Start with new tasks, about which nothing is known yet.

        Args:
            tasks: their parameters ``[N]``, needed only by learners that simulate the task themselves.

        Raises:
            InputError: when there are not N of them.
        """
        self._tasks = self._of_all(TensorDict({}, self.shape[:1]) if tasks is None else tasks)
        self._state = self.learner.begin(self.shape[0])
        self._running: RunningEpisodes | None = None
        self._acted = False
        self._finished: list[tuple[Any, Rollout]] = []

    def change(self, tasks: TensorDict) -> None:
        """Continue in tasks with other parameters ``[N]``, with what is known so far; the learner is not told.

        Raises:
            InputError: when there are not N of them, or an episode has not ended.
        """
        if self._running is not None:
            self.close()
        self._tasks = self._of_all(tasks)

    def _of_all(self, tasks: TensorDict) -> TensorDict:
        if len(tasks) != self.shape[0]:
            raise InputError(f"this session has {self.shape[0]} tasks, but parameters of {len(tasks)} were given")
        return tasks.to(self._device, non_blocking=True)

    @property
    def state(self) -> Any:
        """What the learner knows about the tasks."""
        return self._state

    @property
    def tasks(self) -> TensorDict:
        """Parameters of the tasks ``[N]``; empty if they were not given."""
        return self._tasks

    @property
    def ended(self) -> bool:
        """Whether no episode is running."""
        return self._running is None or self._running.over()

    @property
    def recorded(self) -> int:
        """Number of finished rounds since the last adaptation."""
        done = self._running is not None and self.ended
        return len(self._finished) + done

    def open(self, seed: int | None = None, deterministic: bool = False) -> RunningEpisodes:
        """Start an episode in each row; episodes that are still running are discarded.

        Args:
            seed: of the draws in the episodes; by default it follows from the session's.
            deterministic: act by the mode of the policy instead of sampling.

        Returns:
            The running episodes, for callers that step them in torch without the checks of ``act`` and ``observe``.
        """
        if self._running is not None and self.ended:
            self.close()
        stream = derive_seed(self._seed, "session", self._opened) if seed is None else seed
        self._opened += 1
        self._acted = False
        self._running = RunningEpisodes(
            self.learner,
            self._state,
            self.family.action_space,
            self.shard,
            self.shape[1],
            stream,
            deterministic,
            self._device,
            getattr(self.family, "horizon", FIRST_CAPACITY),
        )
        return self._running

    def act(self, observations: Any) -> Any:
        """Choose an action in every row.

        Args:
            observations: ``[N, E, *observation]``, or of one environment.

        Returns:
            Actions ``[N, E, *action]``, or one, in the action space.

        Raises:
            InputError: when no episode is running, the last action's outcome was not observed, the shape is wrong, or a
                number is NaN or infinite.
        """
        running = self._require_running("act")
        if self._acted:
            raise InputError("act was called twice in one step: pass the outcome of the last action to observe first")
        actions = running.act(self._observations(observations))
        self._acted = True
        if isinstance(observations, Tensor):
            return actions[0, 0] if self._plain else actions
        return self._answer(actions.cpu().numpy())

    def observe(self, observations: Any, rewards: Any, terminated: Any, truncated: Any) -> None:
        """Record what ``env.step`` returned for the last actions.

        Args:
            observations: ``[N, E, *observation]`` after the step, or of one environment. At an episode's end it is the
                last observation of that episode, not the first of the next.
            rewards: ``[N, E]``, or a number.
            terminated: bool ``[N, E]``, or one.
            truncated: likewise.

        Raises:
            InputError: when there was no action since the last call, a shape is wrong, or a number is NaN or infinite.
        """
        if self._running is None or not self._acted:
            raise InputError("observe needs an action: call act first")
        numbers = self._numbers("rewards", rewards).float()
        require_finite("rewards", numbers, self._running.alive)
        ends = self._numbers("terminated", terminated).bool(), self._numbers("truncated", truncated).bool()
        self._running.record(self._observations(observations), numbers, *ends)
        self._acted = False

    def close(self) -> Rollout:
        """End the round, keep it for ``adapt``, and return its episodes.

        Raises:
            InputError: when no episode was opened, or one has not ended.
        """
        if self._running is None:
            raise InputError("there are no episodes to close: call open, act and observe first")
        if not self.ended:
            alive = int(self._running.alive.sum())
            raise InputError(
                f"{alive} of {self._running.alive.numel()} episodes have not ended: continue until session.ended, or "
                "discard them with open"
            )
        rollout = self._running.rollout(self._tasks)
        self._finished.append((self._running.working, rollout))
        self._running = None
        return rollout

    def adapt(self, rollout: Rollout | None = None) -> None:
        """Adapt to the rounds since the last adaptation, or to episodes recorded elsewhere.

        Args:
            rollout: recorded episodes of the N tasks: any number of each, or one for each trial if the learner does not
                pool episodes.

        Raises:
            InputError: when there is nothing to adapt to, an episode has not ended, or the rollout has another number
                of tasks or trials.
        """
        if rollout is not None:
            self._require_fitting(rollout)
            self._state = self.learner.adapt(self._state, rollout)
            return
        if self._running is not None:
            self.close()
        if not self._finished:
            raise InputError("there is nothing to adapt to: run an episode first, or pass a recorded rollout")
        rounds, self._finished = self._finished, []
        if self.learner.pools_episodes and len(rounds) > 1:
            self._state = self.learner.adapt(self._state, join_episodes([rollout for _, rollout in rounds]))
            return
        for working, finished in rounds:
            # The memory that was updated while acting continues the state that it was opened from. Only the first round
            # was opened from the current state; later ones are read from their recording.
            fresh = isinstance(working, OpenState) and working.state is self._state
            self._state = self.learner.close(working, finished) if fresh else self.learner.adapt(self._state, finished)

    def _require_running(self, verb: str) -> RunningEpisodes:
        if self._running is None:
            raise InputError(f"no episode is open: call open at the start of every episode, before {verb}")
        if self.ended:
            raise InputError("every episode has ended: call open for the next ones (after adapt, to adapt to these)")
        return self._running

    def _require_fitting(self, rollout: Rollout) -> None:
        count, episodes = rollout.rewards.shape[:2]
        if count != self.shape[0]:
            raise InputError(f"this session has {self.shape[0]} tasks, but the rollout has {count}")
        if not self.learner.pools_episodes and episodes != self.shape[1]:
            raise InputError(
                f"{self.learner.name} adapts to one episode of each trial: this session has {self.shape[1]} trials of "
                f"each task, but the rollout has {episodes}"
            )

    def _observations(self, observations: Any) -> Tensor:
        """Return observations as a tensor ``[N, E, *observation]``; floating-point ones in float32."""
        values = observed(self.family.observation_space, observations)
        space = observed_space(self.family.observation_space)
        expected = (*(() if self._plain else self.shape), *(space.shape or ()))
        if tuple(values.shape) != expected:
            raise InputError(f"observations must have the shape {list(expected)}, not {list(values.shape)}")
        values = values.float() if values.is_floating_point() else values
        ready = values.to(self._device).view(*self.shape, *(space.shape or ()))
        assert self._running is not None, "act and observe need an open episode"
        require_finite("observations", ready, self._running.alive)
        return ready

    def _numbers(self, name: str, given: Any) -> Tensor:
        values = torch.as_tensor(given if isinstance(given, Tensor) else np.asarray(given))
        expected = () if self._plain else self.shape
        if tuple(values.shape) != expected:
            raise InputError(f"{name} must have the shape {list(expected)}, not {list(values.shape)}")
        return values.to(self._device).view(self.shape)

    def _answer(self, actions: np.ndarray) -> Any:
        """Return actions ``[N, E, *action]`` in the environments' dtype and bounds."""
        space = self.family.action_space
        if isinstance(space, spaces.Box) and is_bounded_box(space):
            actions = actions.clip(space.low, space.high)  # scaling may exceed a bound by a rounding error
        ready = actions.astype(space.dtype)
        return ready[0, 0] if self._plain else ready
