import dataclasses
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from metarl.experiments.learning.figure import draw, make_figure
from metarl.families.references import Reference
from tests.experiments.records import point, record, seed_run

CURVE = record(
    seed_run(1, [point(2, [-4, -3, -3]), point(4, [-4, -2, -1])]),
    seed_run(2, [point(2, [-4, -1, -1]), point(4, [-4, -1, -1])]),
)
SINGLE = record(seed_run(1, [point(1, [-6, -5, -4])]), inner_steps=2)
COSTLY = record(seed_run(1, [point(1, [-6, -5, -4], spent=1000)]), inner_steps=2)


def lines(figure: Figure, panel: int) -> list[tuple[list[float], list[float], str]]:
    """Return the lines of a panel but for references, as points and style."""
    found = [line for line in figure.axes[panel].lines if line.get_linestyle() != "--"]
    return [
        ([*map(float, line.get_xdata())], [*map(float, line.get_ydata())], str(line.get_linestyle())) for line in found
    ]  # type: ignore[arg-type]


def test_a_comparison_about_success_draws_it_and_that_on_training_tasks() -> None:
    points = [point(2, [0, 5], success=[0.0, 0.25]), point(4, [0, 5], success=[0.0, 0.5])]
    figure = make_figure("tiny", {"one": record(seed_run(1, points))}, None)
    assert lines(figure, 0) == [
        ([2000, 4000], [0.25, 0.5], "-"),
        ([2000, 4000], [0, 0], ":"),
        ([2000, 4000], [0.5, 1], "-."),
    ]
    assert lines(figure, 1) == [([0, 10], [0, 0.5], "-")]
    assert figure.axes[0].get_ylabel() == "share of episodes with success"


def test_training_shows_the_mean_over_seeds_before_and_after_adaptation_as_in_training() -> None:
    assert lines(make_figure("tiny", {"one": CURVE}, None), 0) == [
        ([2000, 4000], [-2, -1.5], "-"),
        ([2000, 4000], [-4, -4], ":"),
    ]


def test_training_on_recorded_episodes_is_shown_by_iteration() -> None:
    recorded = dataclasses.replace(SINGLE, recording={"tasks": 3})
    figure = make_figure("tiny", {"one": CURVE, "two": recorded}, None)
    assert [steps for steps, *_ in lines(figure, 0)] == [[2, 4], [2, 4], [1]]
    assert figure.axes[0].get_xlabel() == "training iterations"


def test_adaptation_shows_the_return_against_env_steps_on_the_task() -> None:
    assert lines(make_figure("tiny", {"one": CURVE}, None), 1) == [([0, 10, 20], [-4, -1.5, -1], "-")]


@pytest.mark.parametrize(("records", "scale"), [({"one": CURVE}, "linear"), ({"one": CURVE, "two": COSTLY}, "symlog")])
def test_the_axis_is_logarithmic_where_one_learner_spends_far_more(records: dict[str, object], scale: str) -> None:
    figure = make_figure("tiny", records, None)  # type: ignore[arg-type]
    assert [axes.get_xscale() for axes in figure.axes] == ["linear", scale]


def test_the_legend_names_every_variant_and_is_outside_the_axes() -> None:
    figure = make_figure("tiny", {"one": CURVE, "two": SINGLE}, None)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["one", "two", "before adaptation"]


def test_references_are_in_both_panels() -> None:
    figure = make_figure("tiny", {"one": CURVE}, Reference(10, -38.4, -0.51, "somewhere"))
    drawn = [[line.get_ydata()[0] for line in axes.lines[-2:]] for axes in figure.axes]
    assert drawn == [[-38.4, -0.51]] * 2
    assert [text.get_text() for text in figure.axes[1].texts] == ["no adaptation\n-38.4", "full knowledge\n-0.51"]


def test_a_picture_is_written(tmp_path: Path) -> None:
    draw("tiny", {"one": CURVE, "two": COSTLY, "three": SINGLE}, Reference(10, 0.0, None, ""), tmp_path / "tiny.png")
    assert (tmp_path / "tiny.png").read_bytes().startswith(b"\x89PNG")
