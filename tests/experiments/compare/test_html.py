import re
import shutil
import tomllib
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from metarl.experiments.commands.compare import CompareOptions, compare
from metarl.experiments.compare.html import TEMPLATE, Cell, Page, Row, Section, Table, write_page
from tests.experiments.compared import trained

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Elements(HTMLParser):
    """Collects the start tags of a page with their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, {name: value or "" for name, value in attributes}))


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the page of a comparison."""
    folder = tmp_path_factory.mktemp("page")
    runs = [trained(folder / f"random-{seed}", "random", "gridnavi", seed) for seed in (1, 2)]
    runs += [trained(folder / f"maml-{seed}", "maml-trpo", "gridnavi", seed, inner_steps=2) for seed in (1, 2)]
    compare(CompareOptions(tuple(runs), str(folder / "report"), steps="2"), "metarl compare <runs> --steps 2")
    return folder / "report" / "index.html"


def test_the_page_needs_nothing_else(report: Path) -> None:
    elements = Elements(report.read_text()).found
    links = [own[name] for _, own in elements for name in ("src", "href", "srcset", "data") if name in own]
    assert {link.split(":")[0] if ":" in link else link[0] for link in links} == {"data", "#"}
    assert not re.search(r"url\(|@import|fetch\(|XMLHttpRequest", report.read_text())


def test_every_picture_is_described_in_words(report: Path) -> None:
    pictures = [own for tag, own in Elements(report.read_text()).found if tag == "img"]
    kinds = [own["src"].split(";")[0].removeprefix("data:image/") for own in pictures]
    # Adaptation, profile and training; for each learner its behaviour, its paths, and return by goal.
    assert sorted(kinds) == ["gif"] * 2 + ["svg+xml"] * 7
    assert all(len(own["alt"]) > 40 for own in pictures)
    assert len({own["alt"] for own in pictures}) == len(pictures)


def test_the_page_states_the_protocol(report: Path) -> None:
    text = report.read_text()
    (protocol,) = re.findall(r'<p class="protocol">(.*?)</p>', text)
    for expected in ("4 test tasks, all that there are", "gridnavi, preset varibad, horizon 15", "split hash "):
        assert expected in protocol
    for expected in ("3 episodes", "actions sampled", "Training seeds: 1, 2.", "other seeds and tasks", "torch 2."):
        assert expected in protocol
    assert "metarl compare &lt;runs&gt; --steps 2" in text


def test_what_differs_between_configurations_is_shown_first(report: Path) -> None:
    text = report.read_text().split('id="configurations"')[1]
    open_table, folded = text.split("<details>")
    assert re.findall(r'<tr class="differs"><th scope="row">(\w+)', open_table) == []  # of those that both have
    assert "inner_steps" in folded
    assert "iterations" in folded


def test_the_template_is_part_of_the_package() -> None:
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())
    assert TEMPLATE.name in project["tool"]["setuptools"]["package-data"]["metarl.experiments.compare"]


def test_all_text_is_escaped(tmp_path: Path) -> None:
    evil = "<script>alert('x')</script>"
    table = Table(evil, [evil], [Row(evil, [Cell(evil, [evil])])], sortable=True)
    write_page(Page(evil, evil, evil, [Section("here", evil, [evil], (), [table])]), tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    assert "alert('x')" not in text
    assert len([tag for tag, _ in Elements(text).found if tag == "script"]) == 1  # ours


class Browser:
    """Opens pages in headless Chromium, and notes what their consoles say."""

    def __init__(self, browser: Any) -> None:
        self._browser = browser
        self.said: list[str] = []

    def open(self, path: Path, width: int = 1200, scheme: str = "light") -> Any:
        page = self._browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
        page.on("console", lambda message: self.said.append(message.text))
        page.on("pageerror", lambda error: self.said.append(str(error)))
        page.on("request", lambda request: self._note(request.url))
        page.goto(path.as_uri())
        return page

    def _note(self, url: str) -> None:
        if not url.startswith(("file:", "data:")):
            self.said.append(f"asked for {url}")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield Browser(opened)
        opened.close()


@pytest.mark.parametrize("width", [1200, 360])
def test_it_opens_in_a_browser(report: Path, browser: Browser, width: int) -> None:
    page = browser.open(report, width)
    assert page.title() == "gridnavi (varibad): random and maml-trpo"
    sizes = page.eval_on_selector_all("img", "all => all.map(one => [one.complete, one.naturalWidth, one.alt.length])")
    assert len(sizes) == 9
    assert all(complete and wide > 0 and expected > 0 for complete, wide, expected in sizes)
    assert page.evaluate("document.documentElement.scrollWidth") == width  # tables scroll in their own boxes
    shown = page.eval_on_selector_all("img", "all => all.map(one => one.getBoundingClientRect().width)")
    assert all(0 < wide <= width for wide in shown)
    assert browser.said == []


def brightness(color: str) -> float:
    """Return the mean of the channels of a CSS colour, in [0, 255]."""
    return sum(map(float, re.findall(r"[\d.]+", color)[:3])) / 3


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_in_light_and_dark_mode(report: Path, browser: Browser, scheme: str) -> None:
    page = browser.open(report, scheme=scheme)
    paper = brightness(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert (paper > 200) == (scheme == "light")
    for element in ("h1", "td", "figcaption", ".note", "nav a"):
        ink = brightness(page.eval_on_selector(element, "one => getComputedStyle(one).color"))
        assert abs(ink - paper) > 90, element
    assert browser.said == []


def column(page: Any, name: str) -> list[str]:
    """Return the cells of a column of the table of tasks, from top to bottom."""
    heads = page.eval_on_selector_all("table.sortable thead th", "all => all.map(one => one.innerText.trim())")
    found: list[str] = page.eval_on_selector_all(
        "table.sortable tbody tr", f"all => all.map(one => one.cells[{heads.index(name)}].innerText.trim())"
    )
    return found


def click(page: Any, name: str) -> None:
    page.get_by_role("button", name=name, exact=True).click()


def press(page: Any, name: str) -> None:
    page.get_by_role("button", name=name, exact=True).focus()
    page.keyboard.press("Enter")


@pytest.mark.parametrize("choose", [click, press])
def test_the_table_of_tasks_sorts(report: Path, browser: Browser, choose: Callable[[Any, str], None]) -> None:
    page = browser.open(report)
    before = column(page, "last")
    sorts = "all => all.map(one => one.ariaSort).filter(sort => sort !== 'none')"
    assert page.eval_on_selector_all("table.sortable th[aria-sort]", sorts) == []
    choose(page, "last")
    assert [*map(float, column(page, "last"))] == sorted(map(float, before))
    assert page.eval_on_selector_all("table.sortable th[aria-sort]", sorts) == ["ascending"]
    choose(page, "last")
    assert [*map(float, column(page, "last"))] == sorted(map(float, before), reverse=True)
    assert page.eval_on_selector_all("table.sortable th[aria-sort]", sorts) == ["descending"]
    choose(page, "learner")
    assert column(page, "learner") == ["maml-trpo"] * 4 + ["random"] * 4
    assert browser.said == []
