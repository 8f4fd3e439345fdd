"""A server in a process of its own: its page in a browser, clients that are slow, and its end."""

import json
import shutil
import socket
from collections.abc import Iterator

import httpx
import pytest

from benchmarks.served_process import ServedProcess, served_process
from metarl.client import Client
from metarl.serving.app import Limits
from tests.serving.serving import lived
from tests.serving.test_rebuilding import make_env

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
TOKEN = "secret"


@pytest.fixture(scope="module")
def process(maml: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedProcess]:
    database = f"sqlite:///{tmp_path_factory.mktemp('process') / 'tasks.sqlite'}"
    with served_process(maml, database, Limits(token=TOKEN)) as found:
        yield found


def test_the_page_shows_returns_as_they_come(process: ServedProcess, maml: str) -> None:
    if CHROMIUM is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    playwright = pytest.importorskip("playwright.sync_api")
    env, client = make_env(maml), Client(process.url, TOKEN)
    task = client.task("<b>reach</b> the goal")
    lived(task, env, 0)
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page, said = browser.new_page(viewport={"width": 360, "height": 800}), []
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: said.append(request.url) if process.url not in request.url else None)
        page.goto(process.url)
        page.get_by_label("Token").fill(TOKEN)
        page.get_by_role("button").click()
        card = page.locator(f"[id='{task.id}']")
        card.get_by_role("heading", name="<b>reach</b> the goal").wait_for()
        assert card.locator("circle").count() == 1
        lived(task, env, 1)  # after which it adapts
        lived(task, env, 2)
        card.locator("circle").nth(2).wait_for(state="attached")
        assert card.locator(".adapted").count() == 1
        assert page.title() == "maml-trpo on navigation-2d"
        other = client.task("another")
        page.get_by_role("heading", name="another").wait_for()
        other.delete()
        page.get_by_role("heading", name="another").wait_for(state="detached")
        assert page.evaluate("document.documentElement.scrollWidth") == 360
        browser.close()
    assert said == []
    task.delete()


def test_events_come_as_they_happen(process: ServedProcess, maml: str) -> None:
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    with httpx.stream("GET", f"{process.url}/events", headers=bearer, timeout=30) as stream:
        task = Client(process.url, TOKEN).task()
        told = lived(task, make_env(maml), 0)
        lines = (line for line in stream.iter_lines() if line.startswith("data:"))
        first, second = (json.loads(next(lines)[5:]) for _ in range(2))
    assert first == {"kind": "created", "task": task.id}
    assert second["kind"] == "episode"
    assert second["returns"] == pytest.approx([sum(reward for _, _, reward in told)])


def test_clients_that_are_slow_do_not_keep_others_waiting(process: ServedProcess, maml: str) -> None:
    sockets = []
    for _ in range(20):
        slow = socket.create_connection(("127.0.0.1", process.port))
        head = f"POST /tasks HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: 50\r\n\r\n{{"
        slow.sendall(head.encode())  # and then nothing
        sockets.append(slow)
    lived(Client(process.url, TOKEN).task(), make_env(maml), 0)
    for slow in sockets:
        slow.close()


def test_a_server_stops_with_open_streams(maml: str, url: str) -> None:
    server = ServedProcess(maml, url)
    with httpx.stream("GET", f"{server.url}/events", timeout=30):
        assert server.stop() == 0
