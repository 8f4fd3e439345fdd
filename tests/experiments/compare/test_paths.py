from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from metarl.experiments.compare.comparison import Comparison, Protocol, measure
from metarl.experiments.compare.paths import _draw_plane, path_figures
from metarl.experiments.compare.runs import group_runs, read_runs
from metarl.families.positions import Map
from tests.experiments.compared import trained

COLOURS = {0: np.zeros(3), 1: np.ones(3)}


def compared(path: Path, learner: str, family: str, **settings: Any) -> Comparison:
    run = trained(path, learner, family, 1, **settings)
    return measure(group_runs(read_runs([run])), Protocol(2, {"": 2}, None, "test", False, 0))


@pytest.mark.parametrize(
    ("learner", "family", "settings", "panels"),
    [
        ("random", "navigation-2d", {"horizon": 5}, 1),  # all steps in one plane
        ("random", "gridnavi", {}, 4),  # a map for each step, two in a row
        ("dqn", "gridnavi", {"variant": "oracle"}, 4),  # whose observations begin with the family's
        ("optimal", "gridnavi", {}, 0),  # which observes the best actions
        ("random", "bandit", {}, 0),
    ],
)
def test_paths_are_drawn_where_observations_show_places(
    learner: str, family: str, settings: dict[str, Any], panels: int, tmp_path: Path
) -> None:
    pictures = path_figures(compared(tmp_path / "run", learner, family, **settings))
    assert [len(picture.figure.axes) for picture in pictures] == [panels] * (panels > 0)


def limits(figure: Figure) -> tuple[float, ...]:
    (axes,) = figure.axes
    return (*axes.get_xlim(), *axes.get_ylim())


@pytest.mark.parametrize(
    ("ground", "reach", "half"),
    [
        (Map((0.0, 0.0), 1.0), 0.5, 1.0),  # the map's own
        (Map((0.0, 0.0), 1.0), 2.0, 2.1),  # what the paths need, and a margin
        (Map((0.0, 0.0), 1.0), 9.0, 3.0),  # as far as paths are followed
        (Map(), 9.0, 9.45),  # an empty plane has no end
        (Map(), 0.0, 1.0),
    ],
)
def test_a_plane_is_as_large_as_its_map_or_its_paths(ground: Map, reach: float, half: float) -> None:
    path = np.array([[0.0, 0.0], [reach, 0.0]])
    figure = _draw_plane(ground, {0: [path], 1: [path]}, COLOURS)
    assert limits(figure) == pytest.approx((-half, half, -half, half))


def test_a_plane_without_a_goal_has_no_star() -> None:
    path = np.zeros((2, 2))
    markers = [
        [line.get_marker() for line in _draw_plane(ground, {0: [path]}, COLOURS).axes[0].lines]
        for ground in (Map(), Map(goal=(0.5, 0.5)))
    ]
    assert ["*" in each for each in markers] == [False, True]
