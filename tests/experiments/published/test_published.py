import ast
from pathlib import Path

import pytest

import metarl.experiments.published
from metarl.errors import InputError
from metarl.experiments.published import MODULES, find_published, list_published

FOLDER = Path(metarl.experiments.published.__file__).parent
FILES = sorted(path for path in FOLDER.glob("*.py") if path.stem != "__init__")


def test_every_file_is_found_by_its_name_in_kebab_case() -> None:
    assert {"maml-trpo-navigation-2d", "maml-trpo-half-cheetah-vel", "varibad-gridnavi"} <= set(MODULES)
    assert sorted(MODULES) == [path.stem.replace("_", "-") for path in FILES]
    assert [each.name for each in list_published()] == sorted(MODULES)


@pytest.mark.parametrize("name", MODULES)
def test_it_is_a_config_that_can_be_made_with_a_description(name: str) -> None:
    found = find_published(name)
    assert found.config.make_learner().name == found.config.learner
    assert found.config.run.preset == found.config.preset  # the default may change, the experiment may not
    assert f"metarl train --published {name}" in found.description
    assert found.summary.endswith((".", ":"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_holds_settings_only(path: Path) -> None:
    documentation, *imports, setting = ast.parse(path.read_text()).body
    assert isinstance(documentation, ast.Expr)
    assert all(isinstance(node, ast.ImportFrom) for node in imports)
    assert not any("experiments" in str(node.module) for node in imports if isinstance(node, ast.ImportFrom))
    assert isinstance(setting, ast.Assign)
    assert ast.unparse(setting.targets[0]) == "EXPERIMENT"


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(
        InputError, match=r"no published experiment is called 'varibad-grid'; did you mean varibad-grid"
    ):
        find_published("varibad-grid")
