"""What the database knows of tasks: their list, and everything about one except its steps."""

import json
from typing import Any

from sqlalchemy import Connection, Row, func, select
from sqlmodel import col

from metarl.serving.messages import Episode, TaskState, TaskSummary
from metarl.serving.models import ROUNDS, SERVICES, STEPS, TASKS, Round, Step, Task


def learner_of(connection: Connection) -> tuple[str, str] | None:
    """Return run and checkpoint of the learner that acted in the tasks; None before the first start."""
    row = connection.execute(select(SERVICES)).one_or_none()
    return None if row is None else (row.run, row.checkpoint)


def count_tasks(connection: Connection) -> int:
    """Return how many tasks there are."""
    return int(connection.execute(select(func.count()).select_from(TASKS)).scalar_one())


def is_task(connection: Connection, task: str) -> bool:
    """Return whether there is a task with that id."""
    return connection.execute(select(TASKS.c.id).where(TASKS.c.id == task)).one_or_none() is not None


def list_tasks(connection: Connection, limit: int, offset: int) -> list[TaskSummary]:
    """Return some of the tasks, the newest first."""
    chosen = connection.execute(
        select(TASKS).order_by(TASKS.c.created.desc(), TASKS.c.id).limit(limit).offset(offset)
    ).all()
    ids = [row.id for row in chosen]
    counts = select(ROUNDS.c.task, func.count(ROUNDS.c.returns), func.sum(ROUNDS.c.steps)).group_by(ROUNDS.c.task)
    known = {row[0]: row for row in connection.execute(counts.where(ROUNDS.c.task.in_(ids)))}
    adapted = select(ROUNDS.c.task, func.count()).where(ROUNDS.c.task.in_(ids), ROUNDS.c.adapts).group_by(ROUNDS.c.task)
    adaptations = {row[0]: row[1] for row in connection.execute(adapted)}
    return [
        TaskSummary(
            id=row.id,
            description=row.description,
            created=row.created,
            episodes=known[row.id][1] if row.id in known else 0,
            steps=(known[row.id][2] or 0) if row.id in known else 0,
            adaptation_steps=adaptations.get(row.id, 0),
        )
        for row in chosen
    ]


def describe_task(connection: Connection, task: str) -> TaskState | None:
    """Return everything about a task except its steps; None when there is none with that id."""
    found = find_task(connection, task)
    if found is None:
        return None
    row, rounds = found
    history, adaptations = [], 0
    for each in (each for each in rounds if each.returns is not None):
        history.append(
            Episode(
                episode=each.number,
                returns=json.loads(each.returns or ""),
                steps=each.steps or 0,
                adaptation_steps=adaptations,
                deterministic=each.deterministic,
                recorded=each.recorded,
            )
        )
        adaptations += each.adapts
    step, waiting_for = _position(connection, task, len(history))
    return TaskState(
        id=row.id,
        description=row.description,
        created=row.created,
        episodes=len(history),
        steps=sum(each.steps for each in history),
        adaptation_steps=adaptations,
        parameters=None if row.parameters is None else json.loads(row.parameters),
        parallel_episodes=row.episodes,
        adapt_after=row.adapt_after,
        seed=row.seed,
        episode=len(history),
        step=step,
        waiting_for=waiting_for,
        history=history,
    )


def find_task(connection: Connection, task: str) -> tuple[Task, list[Round]] | None:
    """Return a task and its rounds in order; None when there is none with that id."""
    row = connection.execute(select(TASKS).where(TASKS.c.id == task)).one_or_none()
    if row is None:
        return None
    rounds = connection.execute(select(ROUNDS).where(ROUNDS.c.task == task).order_by(ROUNDS.c.number))
    return Task(**_values(row)), [Round(**_values(each)) for each in rounds]


def _position(connection: Connection, task: str, round: int) -> tuple[int, str]:
    """Return the step that is next in a round, and what it waits for."""
    steps = select(STEPS.c.number, STEPS.c.rewards).where(STEPS.c.task == task, STEPS.c.round == round)
    last = connection.execute(steps.order_by(col(Step.number).desc()).limit(1)).one_or_none()
    if last is None:
        return 0, "observation"
    return (last.number, "feedback") if last.rewards is None else (last.number + 1, "action")


def _values(row: Row[Any]) -> dict[str, Any]:
    return dict(row._mapping)
