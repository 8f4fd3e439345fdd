"""What a request says, checked against what its task waits for; nothing is changed here."""

import numpy as np
from torch import Tensor

from metarl.rollouts.rollout import Episode
from metarl.serving import arrays
from metarl.serving.live_task import LiveTask
from metarl.serving.messages import ExecuteTask, Feedback, Recorded
from metarl.serving.problems import BadRequest, OutOfOrder
from metarl.serving.served import Served


def observation(served: Served, live: LiveTask, asked: ExecuteTask) -> Tensor:
    """Return the observations at which the next action is chosen, ``[1, E, *observation]``.

    Raises:
        BadRequest: when the observation does not fit.
        OutOfOrder: when it is missing or another one, or the episode began with other settings.
    """
    known = live.seen if live.pending is None else live.pending.observations
    if live.running is None and asked.observation is None:
        raise OutOfOrder("an episode starts with its first observation: give it to POST /execute_task")
    for name in ("deterministic", "seed"):
        if live.begun is not None and getattr(asked, name) not in (None, getattr(live.begun, name)):
            raise OutOfOrder(f"this episode began with another {name}; change it at the start of the next one")
    if asked.observation is None:
        assert known is not None
        return known
    given = arrays.observations(served.observation_space, "observation", asked.observation, live.lead)
    seen = served.tensor(_rows(live, given))
    if known is not None and not bool((seen == known).all()):
        raise OutOfOrder(
            "the observation is not this step's, the next_observation of the last feedback; send that one, or none"
        )
    return seen


def outcome(served: Served, live: LiveTask, given: Feedback) -> list[np.ndarray]:
    """Return rewards, terminated, truncated and the next observations, each ``[E, ...]``.

    Raises:
        BadRequest: when a value does not fit, or the episode would go on after the family's horizon.
        OutOfOrder: when no action waits for its outcome.
    """
    if live.pending is None or live.running is None:
        raise OutOfOrder("no action waits for its outcome: ask POST /execute_task for one first")
    parts = (
        arrays.numbers("reward", given.reward, live.lead),
        arrays.flags("terminated", given.terminated, live.lead),
        arrays.flags("truncated", given.truncated, live.lead),
        arrays.observations(served.observation_space, "next_observation", given.next_observation, live.lead),
    )
    rewards, terminated, truncated, after = (_rows(live, part) for part in parts)
    horizon = served.family.horizon
    if live.step + 1 >= horizon and (live.alive & ~(terminated | truncated)).any():
        raise BadRequest(f"step {live.step} is the last of the family's horizon of {horizon}: set truncated to true")
    return [rewards, terminated, truncated, after]


def recorded_episode(served: Served, live: LiveTask, recorded: Recorded) -> Episode:
    """Return a recorded episode, with actions in the policy's units.

    Raises:
        BadRequest: when a value does not fit, or the learner or the task takes none.
        OutOfOrder: when an episode is running.
    """
    if not served.takes_recorded:
        raise BadRequest(
            f"{served.learner.name} adapts to its own actions only, whose probabilities it knows; ask it for them by "
            "POST /execute_task"
        )
    if live.task.episodes is not None:
        raise BadRequest(
            "a task with parallel episodes takes no recorded ones: POST /tasks without episodes makes one that does"
        )
    if live.running is not None:
        raise OutOfOrder("an episode is running: give the outcomes of its steps until it ends")
    steps, horizon = len(recorded.rewards) if isinstance(recorded.rewards, list) else 0, served.family.horizon
    if not 1 <= steps <= horizon:
        raise BadRequest(
            f"recorded.rewards must be a list of 1 to {horizon} numbers ({horizon} is the family's horizon)"
        )
    seen = arrays.observations(served.observation_space, "recorded.observations", recorded.observations, (steps + 1,))
    actions = arrays.policy_actions(served.action_space, "recorded.actions", recorded.actions, (steps,))
    rewards = arrays.numbers("recorded.rewards", recorded.rewards, (steps,))
    return Episode(seen, actions, rewards, recorded.terminated)


def _rows(live: LiveTask, values: np.ndarray) -> np.ndarray:
    """Return values of a task's episodes side by side, ``[E, ...]``."""
    return values if live.lead else values[None]


def was_taken(live: LiveTask, given: Feedback) -> bool:
    """Return whether this feedback was taken before.

    Raises:
        OutOfOrder: when it is about neither what the task waits for nor what it took last.
    """
    whole = given.recorded is not None
    episode = live.round if given.episode is None else given.episode
    step = live.step if given.step is None or whole else given.step
    if (episode, step) == (live.round, live.step):
        return False
    last = live.outcome
    if last is not None and episode == last.episode and (whole or step == last.step):
        return True
    raise OutOfOrder(
        f"this is about step {step} of episode {episode}; the task is at step {live.step} of episode {live.round}: "
        "give the feedback for that one"
    )


def env_action(served: Served, live: LiveTask) -> object:
    """Return the pending actions as the env takes them, for JSON."""
    assert live.pending is not None
    actions = live.pending.choice.env_actions.numpy(force=True)[0]
    if served.bounds is not None:  # which scaling may exceed by a rounding error
        actions = np.minimum(np.maximum(actions, served.bounds[0]), served.bounds[1])
    ready = actions.astype(served.action_space.dtype, copy=False)
    return (ready if live.lead else ready[0]).tolist()
