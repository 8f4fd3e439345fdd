"""The configurations on the page for those who come from another implementation are read and train."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

import metarl
from metarl.run.config_file import refuse_unknown_settings

PAGE = (Path(__file__).parents[1] / "docs" / "migration.md").read_text()
FILES = dict(re.findall(r"^## (.*?)\n.*?^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))
# Fewer and shorter than on the page, by the same code.
RUN = {"iterations": 2, "tasks_per_batch": 2, "episodes_per_task": 2, "horizon": 5, "track": "disabled"}
SETTINGS = {"updates_per_iteration": 2, "batch_size": 8, "hidden_sizes": (8,), "initial_steps": 20}


@pytest.mark.parametrize("name", FILES)
def test_a_translated_configuration_trains(name: str, tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(FILES[name])
    config = metarl.config_from_file(file)
    smaller = {key: value for key, value in SETTINGS.items() if hasattr(config.settings, key)}
    run = replace(config.run, **RUN, out=str(tmp_path / "run"))
    directory = metarl.train(replace(config, run=run, settings=replace(config.settings, **smaller)))
    assert [row["iteration"] for row in directory.read_metrics()] == [0, 1]


@pytest.mark.parametrize("name", FILES)
def test_what_the_tables_name_exists(name: str, tmp_path: Path) -> None:
    section = PAGE.split(f"\n## {name}\n")[1].split("\n## ")[0]
    file = tmp_path / "settings.yaml"
    file.write_text(FILES[name])
    config = metarl.config_from_file(file)
    named = re.findall(r"`(run|settings)\.([\w.]+)", section)
    for part, key in named:
        refuse_unknown_settings(type(getattr(config, part)), {key.split(".")[0]: None}, f"{part}.")
    assert len(named) > 5


def test_three_implementations_are_translated() -> None:
    assert list(FILES) == ["pytorch-maml-rl", "VariBAD", "oyster (PEARL)"]
