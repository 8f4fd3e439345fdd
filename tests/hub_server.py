"""The part of the Hugging Face Hub's protocol that pushing and fetching a small model uses, on this machine."""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN, COMMIT = "secret", "0" * 40


class HubServer(ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.requests: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None: ...

    def answer(self, status: int, content: Any = None, **headers: str) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.answer(401, {"error": "Invalid username or password."})
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            self.server.repositories.setdefault(name, {})
            return self.answer(200, {"url": f"{self.server.url}/{name}", "name": name})
        if self.path == "/api/validate-yaml":
            return self.answer(200, {"errors": [], "warnings": []})
        name, action = self.path.removeprefix("/api/models/").removesuffix("/main").rsplit("/", 1)
        if action == "preupload":
            files = [{**file, "uploadMode": "regular", "shouldIgnore": False} for file in json.loads(body)["files"]]
            return self.answer(200, {"files": files})
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                self.server.repositories[name][line["value"]["path"]] = base64.b64decode(line["value"]["content"])
        return self.answer(200, {"commitUrl": f"{self.server.url}/{name}/commit/{COMMIT}", "commitOid": COMMIT})

    def do_GET(self) -> None:
        if asked := re.match("/api/models/([^/]+/[^/]+)(?:/(revision|tree))?", self.path):
            name, action = asked.groups()
            if (files := self.server.repositories.get(name)) is None:
                return self.answer(404, {"error": "Repository not found"}, X_Error_Code="RepoNotFound")
            if action == "tree":
                hashes = {path: hashlib.sha1(content).hexdigest() for path, content in files.items()}
                entries = [
                    {"type": "file", "path": path, "size": len(files[path]), "oid": hashes[path]} for path in files
                ]
                return self.answer(200, entries)
            return self.answer(200, {"id": name, "sha": COMMIT, "siblings": [{"rfilename": path} for path in files]})
        name, _, path = self.path.removeprefix("/").partition("/resolve/")
        path = path.partition("/")[2]
        if (content := self.server.repositories.get(name, {}).get(path)) is None:
            return self.answer(404, {}, X_Error_Code="EntryNotFound")
        self.answer(200, content, ETag=f'"{hashlib.sha1(content).hexdigest()}"', X_Repo_Commit=COMMIT)

    do_HEAD = do_GET


@contextmanager
def hub_server() -> Iterator[HubServer]:
    with HubServer() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
