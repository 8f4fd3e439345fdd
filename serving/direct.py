"""The requests of every step, answered without the layers of the framework, which cost more than the answers.

FastAPI describes these routes like all others, and answers whatever is not plainly right, with the line that says why.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, get_type_hints

from pydantic import BaseModel, ValidationError
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from metarl.serving.problems import Refusal

JSON = b"application/json"


@dataclass(frozen=True)
class Direct:
    """A route that takes a message in JSON and returns one.

    Attributes:
        path: of the route.
        endpoint: the function that FastAPI's route of this path calls, too.
    """

    path: str
    endpoint: Callable[[Any], Awaitable[BaseModel]]

    def message(self) -> type[BaseModel]:
        """Return the class of the messages that it takes."""
        hints = get_type_hints(self.endpoint)
        kind: type[BaseModel] = next(hint for name, hint in hints.items() if name != "return")
        return kind


class Shortcut:
    """Answers valid POST requests to some routes, and passes on all others.

    Args:
        app: that answers the others.
        routes: that are answered here.
        refuse: returns the answer that refuses a request.
    """

    def __init__(self, app: ASGIApp, routes: Sequence[Direct], refuse: Callable[[Refusal], ASGIApp]) -> None:
        self._app, self._refuse = app, refuse
        self._routes = {route.path: (route, route.message()) for route in routes}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        found = self._routes.get(scope["path"]) if scope["type"] == "http" and scope["method"] == "POST" else None
        if found is None or (b"content-type", JSON) not in scope["headers"]:
            await self._app(scope, receive, send)
            return
        route, kind = found
        body = await receive()
        try:
            asked = kind.model_validate_json(body.get("body", b""))
        except ValidationError:
            await self._app(scope, repeated(body, receive), send)
            return
        scope["route"] = route
        try:
            answer = await route.endpoint(asked)
        except Refusal as refusal:
            await self._refuse(refusal)(scope, receive, send)
            return
        content = answer.model_dump_json().encode()
        headers = [(b"content-type", JSON), (b"content-length", str(len(content)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": content})


def repeated(body: Message, receive: Receive) -> Receive:
    """Return what gives a body that was read, and then what comes after it."""
    waiting = [body]

    async def again() -> Message:
        return waiting.pop() if waiting else await receive()

    return again
