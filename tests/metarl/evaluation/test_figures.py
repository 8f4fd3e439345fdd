from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from tensordict import TensorDict

from metarl.evaluation.figures import draw_adaptation_curve
from metarl.run.adaptation_curve import AdaptationCurve


def curve(tasks: int, steps: int) -> AdaptationCurve:
    returns = np.random.default_rng(0).normal(size=(tasks, steps + 1))
    made = TensorDict({"goal": torch.zeros(tasks, 2)}, [tasks])
    return AdaptationCurve(made, returns, np.arange(steps + 1.0), 3, "test")


@pytest.mark.parametrize(("tasks", "steps"), [(5, 3), (1, 1), (3, 0), (120, 1)])
def test_a_curve_is_drawn_as_png(tasks: int, steps: int, tmp_path: Path) -> None:
    draw_adaptation_curve(curve(tasks, steps), tmp_path / "curve.png", "title")
    assert (tmp_path / "curve.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_the_picture_is_not_blank(tmp_path: Path) -> None:
    draw_adaptation_curve(curve(5, 3), tmp_path / "curve.png", "title")
    assert imread(tmp_path / "curve.png")[..., :3].std() > 0.01


def test_other_returns_are_another_picture(tmp_path: Path) -> None:
    draw_adaptation_curve(curve(5, 3), tmp_path / "one.png", "title")
    draw_adaptation_curve(curve(6, 3), tmp_path / "other.png", "title")
    assert (tmp_path / "one.png").read_bytes() != (tmp_path / "other.png").read_bytes()


def test_a_picture_that_fails_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.figure import Figure

    def fail(figure: Figure, path: Path, **options: object) -> None:
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    draw_adaptation_curve(curve(5, 3), tmp_path / "curve.png", "title")
    before = (tmp_path / "curve.png").read_bytes()
    monkeypatch.setattr(Figure, "savefig", fail)
    with pytest.raises(OSError, match="No space left"):
        draw_adaptation_curve(curve(6, 3), tmp_path / "curve.png", "title")
    assert (tmp_path / "curve.png").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["curve.png"]
