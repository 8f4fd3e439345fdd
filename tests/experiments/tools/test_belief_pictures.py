from pathlib import Path

import pytest
from matplotlib.image import imread

from metarl.errors import InputError
from metarl.experiments.tools.belief_pictures import Options, run
from tests.experiments.compared import trained


@pytest.mark.parametrize(("tasks", "episodes", "panels"), [(3, 2, 9), (1, 1, 1), (2, 1, 50)])
def test_a_picture_is_drawn_as_png(tasks: int, episodes: int, panels: int, tmp_path: Path) -> None:
    path = trained(tmp_path / "run", "varibad", "gridnavi", 1, horizon=6, encoder_size=8, model_updates=1)
    run(Options(path, str(tmp_path / "belief.png"), tasks, episodes, panels))
    assert (tmp_path / "belief.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert imread(tmp_path / "belief.png")[..., :3].std() > 0.01


def test_runs_of_others_are_refused_in_one_line(tmp_path: Path) -> None:
    other = trained(tmp_path / "random", "random", "gridnavi", 1, horizon=3)
    with pytest.raises(InputError, match="random is random on gridnavi, not varibad on gridnavi; choose another run"):
        run(Options(other))


def test_a_picture_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"cannot write a picture to .*file: File exists; choose another --out"):
        run(Options("run", str(tmp_path / "file" / "belief.png")))


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("tasks", 0, "tasks must be at least 1, not 0"),
        ("panels", 0, "panels must be at least 1, not 0"),
        ("episodes", -1, "episodes must be at least 1, not -1"),
        ("out", "belief.jpg", r"give a name that ends in \.png, not belief\.jpg"),
    ],
)
def test_options_that_make_no_sense_are_refused(option: str, value: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Options("run", **{option: value})  # type: ignore[arg-type]
