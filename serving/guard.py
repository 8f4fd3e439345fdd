"""What every request passes first: the token, limits on rates and sizes, and the counting."""

import asyncio
import hmac
import json
import time
from collections import Counter
from collections.abc import Collection

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from metarl.serving.direct import repeated
from metarl.serving.metrics import Metrics

# Seconds within which the body of a request must arrive.
PATIENCE = 30.0


class Guard:
    """Refuses requests before they are read.

    Args:
        app: what is guarded.
        metrics: where requests are counted.
        token: that requests must carry; None lets everyone in.
        open_paths: paths that need no token.
        rate: requests per second from one address.
        largest: bytes of a body.
    """

    def __init__(
        self, app: ASGIApp, metrics: Metrics, token: str | None, open_paths: Collection[str], rate: int, largest: int
    ) -> None:
        self._app, self._metrics, self._open_paths, self._largest = app, metrics, open_paths, largest
        self._expected = None if token is None else f"Bearer {token}".encode()
        self._rate, self._second = rate, 0
        self._hits: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.perf_counter(), 500

        async def counted(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            passed = self._refusal(scope) or await self._body(scope, receive)
            if isinstance(passed, tuple):
                await _answer(counted, *passed)
            else:
                await self._app(scope, passed, counted)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            self._metrics.count(route, status, time.perf_counter() - began)

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        """Return the status and the line with which a request is refused because of its head, or None."""
        headers = dict(scope["headers"])
        given = headers.get(b"authorization", b"")
        guarded = self._expected is not None and scope["path"] not in self._open_paths
        if guarded and not hmac.compare_digest(given, self._expected or b""):
            return 401, "the token is wrong or missing: send the header Authorization: Bearer TOKEN"
        if self._too_many(scope):
            return 429, f"more than {self._rate} requests in a second from one address; wait a second"
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length) > self._largest:
            return 413, self._too_large
        return None

    def _too_many(self, scope: Scope) -> bool:
        """Count a request; return whether its address has made too many in this second."""
        if (second := int(time.monotonic())) != self._second:
            self._second = second
            self._hits.clear()
        address = (scope.get("client") or ("",))[0]
        self._hits[address] += 1
        return self._hits[address] > self._rate

    @property
    def _too_large(self) -> str:
        return f"the body is larger than {self._largest} bytes, enough for a whole episode of this family; send less"

    async def _body(self, scope: Scope, receive: Receive) -> Receive | tuple[int, str]:
        """Return what gives the whole body, or the status and line of a refusal."""
        if scope["method"] not in ("POST", "PUT", "PATCH"):
            return receive
        pieces, size, more = [], 0, True
        try:
            async with asyncio.timeout(PATIENCE):
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return 400, "the client has gone"
                    pieces.append(message.get("body", b""))
                    size += len(pieces[-1])
                    if size > self._largest:
                        return 413, self._too_large
                    more = message.get("more_body", False)
        except TimeoutError:
            return 408, f"the body did not arrive within {PATIENCE:.0f} seconds"
        return repeated({"type": "http.request", "body": b"".join(pieces), "more_body": False}, receive)


async def _answer(send: Send, status: int, line: str) -> None:
    body = json.dumps({"detail": line}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if status == 429:
        headers.append((b"retry-after", b"1"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
