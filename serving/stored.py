"""Steps as rows of the database, and rows as the tensors that they were."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from sqlalchemy import Connection, Row, select
from sqlmodel import col
from tensordict import TensorDict
from torch import Tensor

from metarl.numerics.distributions import Distribution
from metarl.rollouts.rollout import Episode, Rollout
from metarl.sampling.episodes import rollout_of_steps
from metarl.sampling.joint_acting import Choice
from metarl.serving.models import ROUNDS, STEPS, TASKS, Round, Step
from metarl.serving.served import Form, Served, to_bytes
from metarl.serving.statements import Write, add, change, remove

FLAG, REWARD = Form((), torch.bool), Form((), torch.float32)
ADD_ROUND, ADD_STEP = add(ROUNDS), add(STEPS)
OUTCOME = ("rewards", "terminated", "truncated", "next_observations")
END_STEP = change(STEPS, *OUTCOME)
END_ROUND = change(ROUNDS, "returns", "steps", "length", "adapts")
REMOVE = (remove(STEPS, "task"), remove(ROUNDS, "task"), remove(TASKS, "id"))


def add_round(row: Round) -> Write:
    """Return the write of a new round."""
    return ADD_ROUND, row.model_dump()


def add_step(task: str, round: int, number: int, observations: Tensor, choice: Choice) -> Write:
    """Return the write of a choice ``[1, E, ...]``."""
    shape = observations.shape[:2]
    parts = [to_bytes(part.expand(*shape, *part.shape[2:])) for part in choice.distribution.tensors()]
    values = {"task": task, "round": round, "number": number, "observations": to_bytes(observations)}
    return ADD_STEP, {**values, "actions": to_bytes(choice.actions), "distribution": b"".join(parts)}


def end_step(task: str, round: int, number: int, outcome: Sequence[np.ndarray]) -> Write:
    """Return the write of a step's outcome: rewards, terminated, truncated, next observations, each ``[E, ...]``."""
    values = {name: value.tobytes() for name, value in zip(OUTCOME, outcome, strict=True)}
    return END_STEP, {"task": task, "round": round, "number": number, **values}


def end_round(row: Round) -> Write:
    """Return the write of a round's end."""
    return END_ROUND, row.model_dump()


def recorded_steps(task: str, round: int, episode: Episode) -> list[Write]:
    """Return the writes of the steps of a recorded episode."""
    writes: list[Write] = []
    last = len(episode.rewards) - 1
    for number, reward in enumerate(episode.rewards):
        values: dict[str, Any] = {
            "observations": episode.observations[number],
            "actions": episode.actions[number],
            "rewards": reward,
            "terminated": number == last and episode.terminated,
            "truncated": number == last and not episode.terminated,
            "next_observations": episode.observations[number + 1],
        }
        row = {name: np.asarray(value).tobytes() for name, value in values.items()}
        writes.append((ADD_STEP, {"task": task, "round": round, "number": number, "distribution": None, **row}))
    return writes


def remove_task(task: str) -> list[Write]:
    """Return the writes that delete a task with all of its rounds."""
    return [(statement, {"task": task, "id": task}) for statement in REMOVE]


def read_steps(connection: Connection, task: str, rounds: Sequence[int]) -> dict[int, list[Row[Any]]]:
    """Return the steps of some rounds of a task, by round, in order."""
    found: dict[int, list[Row[Any]]] = {number: [] for number in rounds}
    steps = select(STEPS).where(col(Step.task) == task, col(Step.round).in_(rounds))
    for row in connection.execute(steps.order_by(col(Step.round), col(Step.number))):
        found[row.round].append(row)
    return found


def observations_of(served: Served, episodes: int, step: Any) -> Tensor:
    """Return the observations of a step, ``[1, E, *observation]``."""
    return served.observation.read([step.observations], episodes)[:, :, 0].to(served.device)


def choice_of(served: Served, episodes: int, step: Any) -> tuple[Tensor, Distribution]:
    """Return the actions of a step and their distribution, tensors ``[1, E, ...]``."""
    actions = served.action.read([step.actions], episodes)[:, :, 0].to(served.device)
    kind, _ = served.distribution
    parts = [part[:, :, 0].to(served.device) for part in _parameters(served, episodes, [step])]
    return actions, kind(*parts)


def outcome_of(served: Served, episodes: int, step: Any) -> list[np.ndarray]:
    """Return what came of a step: rewards, terminated, truncated and next observations, each ``[E, ...]``."""
    forms = (REWARD, FLAG, FLAG, served.observation)
    return [
        form.read([getattr(step, name)], episodes)[0, :, 0].numpy() for name, form in zip(OUTCOME, forms, strict=True)
    ]


def rollout_of(served: Served, tasks: TensorDict, episodes: int, steps: Sequence[Any]) -> Rollout:
    """Return a complete round, ``[1, E, T, ...]``."""
    stored = {
        "observations": served.observation.read([step.observations for step in steps], episodes),
        "actions": served.action.read([step.actions for step in steps], episodes),
        "rewards": REWARD.read([step.rewards for step in steps], episodes),
        "terminated": FLAG.read([step.terminated for step in steps], episodes),
        "truncated": FLAG.read([step.truncated for step in steps], episodes),
    }
    after = served.observation.read([step.next_observations for step in steps], episodes)
    stored = {name: value.to(served.device) for name, value in stored.items()}
    if steps[0].distribution is None:
        return _recorded(tasks, stored, after)
    kind, _ = served.distribution
    for number, part in enumerate(_parameters(served, episodes, steps)):
        stored[f"distribution_{number}"] = part.to(served.device)
    ends = (stored["terminated"] | stored["truncated"]).long().argmax(-1)  # the first end of each
    final = torch.stack([after[0, row, end] for row, end in enumerate(ends[0].tolist())])
    return rollout_of_steps(tasks, stored, kind, final.unsqueeze(0).to(served.device))


def _recorded(tasks: TensorDict, stored: dict[str, Tensor], after: Tensor) -> Rollout:
    whole: dict[str, Any] = {**stored, "valid": torch.ones_like(stored["terminated"])}
    return Rollout(tasks=tasks, final_observations=after[:, :, -1].to(stored["rewards"].device), **whole)


def _parameters(served: Served, episodes: int, steps: Sequence[Any]) -> list[Tensor]:
    """Return the tensors of the steps' distributions, each ``[1, E, T, ...]``."""
    _, forms = served.distribution
    parts, start = [], 0
    for form in forms:
        stop = start + form.size(episodes)
        parts.append(form.read([step.distribution[start:stop] for step in steps], episodes))
        start = stop
    return parts
