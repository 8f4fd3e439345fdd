import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from metarl.experiments.commands.main import main
from metarl.experiments.commands.show_family import ShowOptions, draw_tasks, show_family
from metarl.families.family import FAMILIES, make_family


def test_every_family_is_listed_in_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["families"]) == 0
    listing, _, hint = capsys.readouterr().out.strip().partition("\n\n")
    assert [line.split()[0] for line in listing.splitlines()] == list(FAMILIES)
    assert "metarl families show NAME" in hint


@pytest.mark.parametrize("name", FAMILIES)
def test_a_page_has_spaces_horizon_and_presets(name: str) -> None:
    family, page = make_family(name), show_family(ShowOptions(name))
    assert family.env_id in page
    assert f"horizon  {family.horizon}" in page
    assert all(preset in page for preset in FAMILIES[name].presets)
    for space in (family.task_space, family.observation_space, family.action_space):
        assert " ".join(str(space).split()) in page


def test_a_family_is_described(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["families", "show", "ant-dir", "--preset", "maml"]) == 0
    said = capsys.readouterr().out
    assert "The reward is the speed along the heading" in said
    assert "ant-dir  (metarl/AntDir-v0)" in said
    assert "drawn" not in said


def test_tasks_are_drawn(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["families", "show", "navigation-2d", "--render", "out.png", "--tasks", "3"]) == 0
    assert "drawn: out.png" in capsys.readouterr().out
    # Three frames, two gaps; a caption of one line above.
    assert np.asarray(Image.open("out.png")).shape == (256 + 32, 3 * 256 + 2 * 8, 3)


def test_the_seed_chooses_the_tasks() -> None:
    family = make_family("navigation-2d")
    one, same, other = (draw_tasks(family, 2, seed) for seed in (1, 1, 2))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("navigation-2", "no task family is called 'navigation-2'; did you mean navigation-2d?"),
        ("navigation-2d --preset x", "navigation-2d has no preset 'x'; it has maml"),
        ("navigation-2d --render out.jpg", "give a name that ends in .png, not out.jpg"),
        ("navigation-2d --render out.png --tasks 0", "the number of tasks must be at least 1, not 0"),
        ("navigation-2d --render nowhere/out.png", "No such file or directory (nowhere/"),
        ("", "metarl families show --help explains the options"),
    ],
)
def test_bad_input_is_one_line(words: str, complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["families", "show", *words.split()]) in (1, 2)
    said = capsys.readouterr().err
    assert complaint in said
    assert said.count("\n") == 1


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_every_option_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["families", "show", "--help"])
    said = capsys.readouterr().out
    assert all(f"--{field.name}" in said for field in dataclasses.fields(ShowOptions) if field.name != "family")
