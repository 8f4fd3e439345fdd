"""The built manual in headless Chromium: `make docs` builds it and runs these tests."""

import re
import shutil
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import unquote

import pytest

pytestmark = pytest.mark.manual

SITE = Path(__file__).parents[1] / "site"
# One page of each kind, and those with the widest code; the rest have the same template.
PAGES = [".", "install", "tutorial", "how-do-i/train", "gallery", "families-gridworlds", "maml-trpo", "rl2"]
PAGES += ["metric-task-inference", "serving", "gpu", "learning-results", "reference", "reference/training"]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
WIDE, NARROW = {"width": 1400, "height": 900}, {"width": 390, "height": 844}
# Code that is wider than its box, equations that were not rendered, and pictures that did not load.
CUT = "all => all.filter(one => one.scrollWidth > one.clientWidth + 1).map(one => one.textContent.slice(0, 80))"
PLAIN = "all => all.filter(one => !one.querySelector('.katex')).map(one => one.textContent)"
MISSING = "all => all.filter(one => !(one.complete && one.naturalWidth)).map(one => one.src.slice(0, 80))"


class Quiet(SimpleHTTPRequestHandler):
    """Serves files without a line for each."""

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


class Reader:
    """A page of Chromium on the served manual, and what should not have happened on it."""

    def __init__(self, page: Any, address: str) -> None:
        self.page, self._address = page, address
        self.said: list[str] = []
        page.on("console", lambda message: self.said.append(message.text))
        page.on("pageerror", lambda error: self.said.append(str(error)))
        page.on("request", lambda request: self._note(request.url))
        page.on("response", lambda response: self._note_failure(response.status, response.url))

    def open(self, name: str) -> Any:
        """Open a page of the manual, as wide and as light as a desk."""
        self.page.set_viewport_size(WIDE)
        self.page.emulate_media(color_scheme="light")
        self.page.goto(f"{self._address}/{name}/", wait_until="load")
        return self.page

    def _note_failure(self, status: int, url: str) -> None:
        if status >= 400:
            self.said.append(f"{status} {url}")

    def _note(self, url: str) -> None:
        if not url.startswith((self._address, "data:", "blob:")):
            self.said.append(f"asked for {url}")


@pytest.fixture(scope="module")
def reader() -> Iterator[Reader]:
    if CHROMIUM is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    assert SITE.exists(), "make docs builds the manual first"
    playwright = pytest.importorskip("playwright.sync_api")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(SITE)))
    Thread(target=server.serve_forever, daemon=True).start()
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield Reader(browser.new_page(), f"http://127.0.0.1:{server.server_port}")
        browser.close()
    server.shutdown()
    server.server_close()


def brightness(page: Any, element: str, property: str) -> float:
    """Return the mean of the channels of an element's colour, in [0, 255]."""
    color = page.eval_on_selector(element, f"one => getComputedStyle(one).{property}")
    return sum(map(float, re.findall(r"[\d.]+", color)[:3])) / 3


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_whole_on_a_desk_and_in_a_hand(reader: Reader, name: str) -> None:
    page = reader.open(name)
    assert page.eval_on_selector_all("pre > code", CUT) == []
    assert page.eval_on_selector_all(".arithmatex", PLAIN) == []
    assert page.eval_on_selector_all("article img", MISSING) == []
    box = page.locator(".md-search__form").bounding_box()
    assert box["x"] + box["width"] <= WIDE["width"]
    assert brightness(page, "body", "backgroundColor") > 200
    page.set_viewport_size(NARROW)
    page.emulate_media(color_scheme="dark")
    # The theme's script is told of it in an event, after the call has returned.
    page.wait_for_function("document.body.dataset.mdColorScheme == 'slate'")
    assert page.evaluate("document.documentElement.scrollWidth") == NARROW["width"]
    assert brightness(page, "body", "backgroundColor") < 60
    assert brightness(page, "article", "color") > 120
    assert reader.said == []


def test_code_is_highlighted_and_can_be_copied(reader: Reader) -> None:
    page = reader.open("maml-trpo")
    keyword, name = (page.locator(f".highlight .{kind}").first for kind in ("k", "n"))
    colours = [each.evaluate("one => getComputedStyle(one).color") for each in (keyword, name)]
    assert colours[0] != colours[1]
    assert page.locator(".highlight button[data-md-type=copy]").count() == page.locator("pre > code").count()


@pytest.mark.parametrize(
    ("words", "found"),
    [("callback", "Callbacks"), ("yaml", "Settings in a file"), ("sb3", "Stable-Baselines3")],
)
def test_the_search_finds(reader: Reader, words: str, found: str) -> None:
    page = reader.open("")
    page.locator(".md-search__input").fill(words)
    page.wait_for_selector(".md-search-result__article")
    assert found in page.locator(".md-search-result__list").inner_text()
    assert reader.said == []


def test_every_link_leads_somewhere() -> None:
    texts = {path: path.read_text() for path in SITE.rglob("*.html")}
    anchors = {path: set(re.findall(r'\bid="([^"]*)"', text)) for path, text in texts.items()}
    broken = []
    for path, text in texts.items():
        for link in set(re.findall(r'(?:href|src)="([^"]+)"', text)):
            if re.match(r"[a-z]+:", link) or path.name == "404.html":
                continue
            place, _, anchor = unquote(link).partition("#")
            target = (path.parent / place).resolve() if place else path
            target = target / "index.html" if target.is_dir() else target
            if not target.exists() or (anchor and anchor not in anchors[target]):
                broken.append(f"{path.relative_to(SITE)}: {link}")
    assert len(texts) > len(PAGES)
    assert broken == []
