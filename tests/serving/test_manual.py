"""The manual's page on serving: its curl session and its Python are run against a server."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from benchmarks.served_process import served_process

PAGE = (Path(__file__).parents[2] / "docs" / "serving.md").read_text()


def block(language: str, after: str = "") -> str:
    """Return the first fenced block of a language after a text."""
    found = re.search(rf"```{language}\n(.*?)```", PAGE[PAGE.index(after) :], re.DOTALL)
    assert found is not None
    return found[1]


@pytest.mark.manual
def test_the_manual_is_right(maml: str, url: str) -> None:
    if shutil.which("curl") is None:
        pytest.skip("needs curl")
    with served_process(maml, url) as server:
        commands = block("sh", "<!-- session -->").replace("\ncurl", "\necho; curl")
        done = subprocess.run(
            ["bash", "-euc", f"URL={server.url}\n{commands}"], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        answers = [json.loads(line) for line in done.stdout.splitlines() if line]
        shown = [json.loads(line.replace(", ...", "")) for line in block("text", "The second").splitlines()]
        assert [sorted(answer.keys() & said) for answer, said in zip(answers, shown, strict=True)] == [
            sorted(each) for each in shown
        ]
        assert answers[4]["returns"] == [pytest.approx(-0.9)]
        module: dict[str, Any] = {}
        exec(block("python").replace("-0.2))", "-0.2), horizon=6)"), module)
        returns = module["adapt_over_http"](server.url)
        assert len(returns) == 40
