"""The service: tasks are submitted, acted in, answered with feedback, and adapted to.

The order of a request is always the same: check it, compute, store what came of it, and only then answer.
"""

import asyncio
import json
import secrets
import uuid
from datetime import UTC, datetime

import numpy as np
from sqlalchemy import Connection
from torch import Tensor

from metarl.errors import InputError
from metarl.serving import catalogue, requests, stored
from metarl.serving.acting import Acting, torch_thread
from metarl.serving.database import Database
from metarl.serving.events import Events
from metarl.serving.live_task import LiveTask, Pending, end_of
from metarl.serving.messages import Action, ExecuteTask, Feedback, NewTask, Outcome, Recorded, TaskState, TaskSummary
from metarl.serving.metrics import Metrics
from metarl.serving.models import TASKS, Round, Task
from metarl.serving.open_tasks import OpenTasks
from metarl.serving.problems import BadRequest, OutOfOrder, Unknown
from metarl.serving.served import Served
from metarl.serving.statements import add

ADD_TASK = add(TASKS)


class Service:
    """What the routes call.

    Args:
        served: the learner.
        database: where everything is stored.
        window: seconds for which the first request for an action waits for others.
        open_tasks: tasks that stay in memory.
        max_tasks: maximum number of tasks.
    """

    def __init__(self, served: Served, database: Database, window: float, open_tasks: int, max_tasks: int) -> None:
        self.served, self.database, self.metrics, self.events = served, database, Metrics(), Events()
        self._acting = Acting(served, window, self.metrics)
        self._learning = torch_thread("learning")
        self._open = OpenTasks(open_tasks, self._load, self.metrics)
        self._max_tasks = max_tasks

    def close(self) -> None:
        """End the threads, and release the database."""
        self.events.close()
        self._acting.close()
        self._learning.shutdown()
        self.database.close()

    async def create(self, asked: NewTask) -> TaskState:
        """Make a task.

        Raises:
            BadRequest: when the parameters are not the family's, or the learner cannot adapt when it is asked to.
            OutOfOrder: when there are too many tasks.
        """
        if asked.parameters is not None:
            try:
                self.served.family.make_task(asked.parameters)
            except InputError as error:
                raise BadRequest(str(error)) from None
        if asked.adapt_after not in (None, 1) and not self.served.learner.pools_episodes:
            raise BadRequest(f"{self.served.learner.name} adapts after every episode; leave adapt_after out")
        if await self.database.read(catalogue.count_tasks) >= self._max_tasks:
            raise OutOfOrder(
                f"there are {self._max_tasks} tasks, the most that this server keeps; delete some, or raise --max-tasks"
            )
        task = Task(
            id=uuid.uuid4().hex,
            created=datetime.now(UTC).isoformat(),
            description=asked.description,
            parameters=None if asked.parameters is None else json.dumps(asked.parameters),
            episodes=asked.episodes,
            adapt_after=asked.adapt_after or self.served.adapt_after,
            seed=secrets.randbits(63) if asked.seed is None else asked.seed,
        )
        await self.database.write((ADD_TASK, task.model_dump()))
        self.events.publish("created", task=task.id)
        return await self.state(task.id)

    async def tasks(self, limit: int, offset: int) -> list[TaskSummary]:
        """Return a part of all tasks, the newest first."""
        return await self.database.read(lambda connection: catalogue.list_tasks(connection, limit, offset))

    async def state(self, task: str) -> TaskState:
        """Return everything about a task except its steps.

        Raises:
            Unknown: when there is no such task.
        """
        found = await self.database.read(lambda connection: catalogue.describe_task(connection, task))
        if found is None:
            raise _unknown(task)
        return found

    async def remove(self, task: str) -> None:
        """Delete a task with all of its episodes.

        Raises:
            Unknown: when there is no such task.
        """
        async with self._open.closed(task):
            if not await self.database.read(lambda connection: catalogue.is_task(connection, task)):
                raise _unknown(task)
            await self.database.write(*stored.remove_task(task))
        self.events.publish("deleted", task=task)

    async def execute(self, asked: ExecuteTask) -> Action:
        """Choose the next action of a task; asked again before its outcome is known, the answer is the same.

        Raises:
            Unknown: when there is no such task.
            BadRequest: when the observation does not fit.
            OutOfOrder: when the observation is missing or another one, or the episode began with other settings.
        """
        async with self._open.hold(asked.task) as live:
            seen = requests.observation(self.served, live, asked)
            if live.pending is None:
                await self._choose(live, asked, seen)
            assert live.pending is not None
            return Action(
                task=asked.task, episode=live.round, step=live.step, action=requests.env_action(self.served, live)
            )

    async def feedback(self, given: Feedback) -> Outcome:
        """Record the outcome of the last action, or a recorded episode; adapt when it is time.

        Raises:
            Unknown: when there is no such task.
            BadRequest: when a value does not fit.
            OutOfOrder: when no action waits for its outcome, or it is about another one.
        """
        async with self._open.hold(given.task) as live:
            if requests.was_taken(live, given):
                assert live.outcome is not None
                return live.outcome
            await (self._end_step(live, given) if given.recorded is None else self._add(live, given.recorded))
            assert live.outcome is not None
            return live.outcome

    async def _choose(self, live: LiveTask, asked: ExecuteTask, seen: Tensor) -> None:
        writes = []
        if live.running is None:
            writes.append(stored.add_round(live.start(asked.seed, bool(asked.deterministic))))
        assert live.running is not None
        choice = await self._acting.choose(live.running, seen)
        if not np.isfinite(choice.actions.numpy(force=True)).all():
            self._open.forget(asked.task)
            raise BadRequest("the policy has no finite action for this observation; its numbers are too large")
        live.pending = Pending(seen, choice)
        writes.append(stored.add_step(asked.task, live.round, live.step, seen, choice))
        await self.database.write(*writes)

    async def _end_step(self, live: LiveTask, given: Feedback) -> None:
        if live.pending is None:
            raise OutOfOrder("no action waits for its outcome: ask POST /execute_task for one first")
        outcome = requests.outcome(self.served, live, given)
        ended = stored.end_step(given.task, live.round, live.step, outcome)
        if not live.record(*outcome):
            await self.database.write(ended)
            return
        row = live.end()
        await self.database.write(ended, stored.end_round(row))
        await self._complete(live, row)

    async def _add(self, live: LiveTask, recorded: Recorded) -> None:
        episode = requests.recorded_episode(self.served, live, recorded)
        begun = Round(task=live.task.id, number=live.round, seed=0, deterministic=False, recorded=True)
        last = np.arange(len(episode.rewards)) == len(episode.rewards) - 1
        row = end_of(begun, episode.rewards[None], last[None], live.due())
        await self.database.write(stored.add_round(row), *stored.recorded_steps(live.task.id, live.round, episode))
        await self._complete(live, row)

    async def _complete(self, live: LiveTask, row: Round) -> None:
        """End a round that is stored, and adapt if it is time."""
        before, number = live.adaptations, live.round
        if live.complete(row):
            await self._adapt(live)
        self.metrics.episodes.inc(live.episodes)
        self.metrics.adaptations.inc(live.adaptations - before)
        about = {"episode": number, "returns": json.loads(row.returns or "[]"), "before": before}
        self.events.publish("episode", task=row.task, after=live.adaptations, **about)

    async def _adapt(self, live: LiveTask) -> None:
        """Adapt to the rounds since the last adaptation, as the database has them."""
        task, rounds, loop = live.task.id, live.since, asyncio.get_running_loop()
        steps = await self.database.read(lambda connection: stored.read_steps(connection, task, rounds))

        def learn() -> None:
            live.adapt(
                [stored.rollout_of(self.served, live.parameters, live.episodes, steps[number]) for number in rounds]
            )

        await loop.run_in_executor(self._learning, learn)

    async def _load(self, task: str) -> LiveTask:
        """Rebuild a task from the database."""

        def find(connection: Connection) -> tuple[Task, list[Round]] | None:
            return catalogue.find_task(connection, task)

        found = await self.database.read(find)
        if found is None:
            raise _unknown(task)
        row, rounds = found
        live, loop = LiveTask(self.served, row), asyncio.get_running_loop()
        for each in rounds:
            if each.returns is None:
                steps = await self.database.read(lambda connection: stored.read_steps(connection, task, [live.round]))
                await loop.run_in_executor(self._learning, live.replay, each, steps[live.round])
            elif live.complete(each):
                await self._adapt(live)
        self.metrics.rebuilt.inc(bool(rounds))
        return live


def _unknown(task: str) -> Unknown:
    return Unknown(f"there is no task {task}; POST /tasks makes one, GET /tasks lists them")
