"""A server on this machine that speaks as much of W&B's protocol as an upload needs, and keeps what it is sent."""

import gzip
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

HISTORY = "wandb-history.jsonl"


class WandbServer(ThreadingHTTPServer):
    """What was uploaded, run by run, as W&B keeps it: a line that is sent again replaces the one at its offset."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.lines: dict[str, dict[int, dict[str, Any]]] = {}
        self.configs: dict[str, dict[str, Any]] = {}

    def history(self, run: str) -> list[dict[str, Any]]:
        """Return the rows of a run, which have no gaps."""
        lines = self.lines[run]
        assert sorted(lines) == list(range(len(lines)))
        return [lines[number] for number in range(len(lines))]

    def iterations(self, run: str) -> list[float]:
        """Return the iterations whose returns a run's history holds, in its order."""
        return [row["iteration"] for row in self.history(run) if "return_after" in row]

    def stream(self, run: str, content: dict[str, Any]) -> None:
        """Take over lines of a run's files."""
        sent = content.get("files", {}).get(HISTORY, {"offset": 0, "content": []})
        kept = self.lines.setdefault(run, {})
        kept |= {sent["offset"] + number: json.loads(line) for number, line in enumerate(sent["content"])}

    def answer(self, operation: str, variables: dict[str, Any]) -> dict[str, Any]:
        """Return the data of a GraphQL operation."""
        if operation == "UpsertBucket":
            run = variables["name"]
            self.configs.setdefault(run, {}).update(json.loads(variables["config"] or "{}"))
            return {"upsertBucket": {"bucket": self._bucket(run), "inserted": True}}
        if operation == "RunResumeStatus":
            bucket = self._resumed(variables["name"]) if variables["name"] in self.lines else None
            return {"model": {"id": "project", "name": "metarl", "entity": {"id": "e", "name": "us"}, "bucket": bucket}}
        if operation == "CreateRunFiles":
            files = [{"name": name, "uploadUrl": f"{self.url}/upload"} for name in variables["files"]]
            return {"createRunFiles": {"runID": "1", "uploadHeaders": [], "files": files}}
        if operation == "CreateArtifact":  # one that it has already, so that no file follows
            artifact = {"id": "1", "state": "COMMITTED", "artifactSequence": {"id": "1", "latestArtifact": {"id": "1"}}}
            return {"createArtifact": {"artifact": artifact}}
        if operation == "ArtifactType":  # no artifact of that name yet
            return {"project": None}
        if operation == "Viewer":
            return {"viewer": {"id": "1", "entity": "us", "username": "us", "flags": "{}", "teams": {"edges": []}}}
        return {}

    def _bucket(self, run: str) -> dict[str, Any]:
        project = {"id": "project", "name": "metarl", "entity": {"id": "e", "name": "us"}}
        return {"id": "1", "name": run, "displayName": run, "project": project}

    def _resumed(self, run: str) -> dict[str, Any]:
        rows = self.history(run)
        counts = {"historyLineCount": len(rows), "eventsLineCount": 0, "logLineCount": 0}
        tails = {"historyTail": json.dumps([json.dumps(rows[-1])]), "eventsTail": "[]"}
        about = {"config": json.dumps(self.configs[run]), "summaryMetrics": json.dumps(rows[-1]), "tags": []}
        return {**self._bucket(run), **counts, **tails, **about, "wandbConfig": json.dumps({"t": 1})}


class _Handler(BaseHTTPRequestHandler):
    server: WandbServer
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        if self.headers["Content-Encoding"] == "gzip":
            body = gzip.decompress(body)
        answer: dict[str, Any] = {}
        if self.path == "/graphql":
            asked = json.loads(body)
            operation = re.search(r"(?:query|mutation)\s+(\w+)", asked["query"])
            answer = {"data": self.server.answer(operation[1] if operation else "", asked.get("variables") or {})}
        elif self.path.endswith("/file_stream"):
            self.server.stream(self.path.split("/")[-2], json.loads(body))
        self._reply(json.dumps(answer).encode())

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"] or 0))
        self._reply(b"")

    def _reply(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *given: Any) -> None:
        """Say nothing."""


@contextmanager
def wandb_server() -> Iterator[WandbServer]:
    """Serve on a free port inside the block."""
    with WandbServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
