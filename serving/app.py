"""The routes, as a FastAPI application."""

from collections.abc import AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from fastapi import Depends, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from fastapi.security import HTTPBearer
from fastapi.sse import EventSourceResponse, ServerSentEvent
from starlette.exceptions import HTTPException

from metarl.families.spaces import one_line
from metarl.serving import messages
from metarl.serving.catalogue import learner_of
from metarl.serving.direct import Direct, Shortcut
from metarl.serving.guard import Guard
from metarl.serving.problems import NotStored, Refusal
from metarl.serving.served import Served
from metarl.serving.service import Service

PAGE = Path(__file__).with_name("page.html")
OPEN_PATHS = ("/", "/health", "/openapi.json")
CONTENT = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'"
PROBLEMS: dict[int | str, dict[str, Any]] = {
    400: {"model": messages.Problem, "description": "The body is not JSON"},
    401: {"model": messages.Problem, "description": "The token is wrong or missing"},
    404: {"model": messages.Problem, "description": "There is no such task"},
    408: {"model": messages.Problem, "description": "The body did not arrive in time"},
    409: {"model": messages.Problem, "description": "It does not fit what the task is waiting for"},
    413: {"model": messages.Problem, "description": "The body is too large"},
    422: {"model": messages.Problem, "description": "A shape, a type or a value is wrong"},
    429: {"model": messages.Problem, "description": "Too many requests from this address"},
    503: {"model": messages.Problem, "description": "The database did not answer; nothing is lost"},
}
TaskId = messages.TaskId


@dataclass(frozen=True)
class Limits:
    """What a server accepts.

    Attributes:
        token: that requests must carry; None lets everyone in.
        rate: requests per second from one address.
    """

    token: str | None = None
    rate: int = 5000


def make_app(service: Service, limits: Limits) -> Guard:
    """Return the application; it closes the service when it ends."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        service.close()

    secured = [Depends(HTTPBearer(auto_error=False))] if limits.token is not None else []
    app = FastAPI(
        title="metarl",
        description="A trained learner that adapts to the tasks it is given.",
        version="1",
        lifespan=lifespan,
        docs_url=None,  # both would load scripts from the network
        redoc_url=None,
        responses=PROBLEMS,
        dependencies=secured,
    )
    _add_tasks(app, service)
    steps = _add_steps(app, service)
    _add_views(app, service)
    app.add_exception_handler(Refusal, _refuse)
    app.add_exception_handler(RequestValidationError, _refuse_form)
    app.add_exception_handler(HTTPException, _refuse_plainly)
    direct = Shortcut(app, steps, refusal)
    largest = largest_body(service.served)
    return Guard(direct, service.metrics, limits.token, OPEN_PATHS, limits.rate, largest)


def largest_body(served: Served) -> int:
    """Return the bytes that the largest request may have: a whole episode, or a step of all episodes side by side."""
    numbers = int(np.prod(served.observation.shape)) + int(np.prod(served.action.shape)) + 2
    return 65_536 + 32 * numbers * max(served.family.horizon + 1, messages.MAX_EPISODES)


def _add_tasks(app: FastAPI, service: Service) -> None:
    @app.post("/tasks", status_code=201)
    async def make_a_task(task: messages.NewTask) -> messages.TaskState:
        """Submit a task to adapt to."""
        return await service.create(task)

    @app.get("/tasks")
    async def list_tasks(
        limit: Annotated[int, Query(ge=1, le=1000)] = 100, offset: Annotated[int, Query(ge=0, le=2**31 - 1)] = 0
    ) -> list[messages.TaskSummary]:
        """List the tasks, the newest first."""
        return await service.tasks(limit, offset)

    @app.get("/tasks/{task}")
    async def show_a_task(task: TaskId) -> messages.TaskState:
        """Show the episodes of a task, their returns and adaptation steps, and what it waits for."""
        return await service.state(task)

    @app.delete("/tasks/{task}", status_code=204)
    async def delete_a_task(task: TaskId) -> None:
        """Delete a task with all of its episodes."""
        await service.remove(task)


def _add_steps(app: FastAPI, service: Service) -> list[Direct]:
    """Add the routes of every step; return them."""

    @app.post("/execute_task")
    async def execute_a_task(asked: messages.ExecuteTask) -> messages.Action:
        """Ask for the action at an observation; asked again before feedback, the answer is the same."""
        return await service.execute(asked)

    @app.post("/feedback")
    async def give_feedback(given: messages.Feedback) -> messages.Outcome:
        """Give the outcome of the last action, or a whole recorded episode; the learner adapts when it is time."""
        return await service.feedback(given)

    return [Direct("/execute_task", execute_a_task), Direct("/feedback", give_feedback)]


def _add_views(app: FastAPI, service: Service) -> None:
    served = service.served

    @app.get("/health")
    async def show_health() -> messages.Health:
        """Say what is served, if the database answers."""
        await service.database.read(learner_of)
        return messages.Health(
            status="ok",
            learner=served.learner.name,
            family=served.family.name,
            iteration=served.iteration,
            observation=one_line(served.observation_space),
            action=one_line(served.action_space),
        )

    @app.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    async def show_metrics() -> Response:
        """Show counts and times in Prometheus' format."""
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4")

    async def check_room() -> None:
        service.events.check_room()

    @app.get("/events", response_class=EventSourceResponse, dependencies=[Depends(check_room)])
    async def listen() -> AsyncIterable[ServerSentEvent]:
        """Report what happens to tasks, as server-sent events."""
        async for event in service.events.listen():
            yield ServerSentEvent(data=event)

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def show_page() -> HTMLResponse:
        return HTMLResponse(PAGE.read_text(encoding="utf-8"), headers={"Content-Security-Policy": CONTENT})


def refusal(error: Refusal) -> JSONResponse:
    """Return the answer that refuses a request."""
    later = {"Retry-After": "1"} if isinstance(error, NotStored) else None
    return JSONResponse({"detail": str(error)}, error.status, later)


async def _refuse(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, Refusal)
    return refusal(error)


async def _refuse_form(request: Request, error: Exception) -> JSONResponse:
    """Say in one line what is wrong with the first wrong field."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return JSONResponse({"detail": f"the body is not JSON ({first['ctx']['error']})"}, 400)
    said = first["msg"].removeprefix("Value error, ")
    place = ".".join(str(part) for part in first["loc"] if part not in ("body", "query", "path"))
    return JSONResponse({"detail": f"{place}: {said}" if place else said}, 422)


async def _refuse_plainly(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    return JSONResponse({"detail": error.detail}, error.status_code, error.headers)
