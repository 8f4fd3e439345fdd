import json
import re
from pathlib import Path

import pytest

from metarl.experiments.manual.hooks import notebook, on_page_markdown, source

ROOT = Path(__file__).parents[3]


def test_code_is_that_of_the_file_without_its_docstring() -> None:
    shown = source("agents/gradient/adaptation.py", "naive")
    first, *body = shown.splitlines()
    assert first == "def naive(distribution: Distribution, episodes: Episodes) -> Tensor:"
    assert '"""' not in shown
    assert all(line in (ROOT / "agents/gradient/adaptation.py").read_text() for line in body)


def test_a_method_is_moved_to_the_margin() -> None:
    assert source("agents/gradient/maml_trpo.py", "MamlTrpo.curvature").startswith("def curvature(self, ")


def test_code_that_does_not_exist_is_refused() -> None:
    with pytest.raises(LookupError, match=r"does not define MamlTrpo\.nothing"):
        source("agents/gradient/maml_trpo.py", "MamlTrpo.nothing")


def test_a_block_becomes_one_block_for_each_name() -> None:
    code = "metarl/rollouts/returns.py"
    page = f"before\n\n```source\n{code} per_task_mean\n{code} discounted_returns\n```\n\nafter"
    titles = re.findall(r'^```python title="(.*)"$', on_page_markdown(page, page=None), re.MULTILINE)
    assert titles == ["metarl/rollouts/returns.py: per_task_mean", "metarl/rollouts/returns.py: discounted_returns"]


def test_a_notebook_becomes_its_texts_code_and_outputs() -> None:
    printed = {"output_type": "stream", "text": ["3\n"]}
    drawn = {"output_type": "display_data", "data": {"image/png": "AAAA\n"}}
    cells = [
        {"cell_type": "markdown", "metadata": {}, "source": ["# Title\n", "text"]},
        {"cell_type": "code", "metadata": {"alt": "a line"}, "source": ["print(3)"], "outputs": [printed, drawn]},
    ]
    expected = "# Title\ntext\n\n```python\nprint(3)\n```\n\n```text\n3\n```\n\n![a line](data:image/png;base64,AAAA)\n"
    assert notebook(json.dumps({"cells": cells})) == expected
