import re
from pathlib import Path
from typing import Any

import pytest

from metarl.agents.gradient.maml_trpo import MamlTrpoConfig
from metarl.agents.gradient.reptile import ReptileConfig
from metarl.errors import InputError
from metarl.experiments.learning.comparisons import COMPARISONS, find_comparison_reference
from metarl.experiments.learning.matching import matches, matches_recording
from metarl.experiments.learning.records import read_record
from metarl.experiments.learning.variant import Variant
from metarl.experiments.tools.tiny_language_model import write_model
from metarl.families.family import FAMILIES
from metarl.run.config import RunConfig, TrainConfig

RESULTS = Path(__file__).parents[3] / "experiments" / "results"
EVERY = [(name, label) for name, variants in COMPARISONS.items() for label in variants]


def variant(steps: int, evaluations: int, learner: str = "maml-trpo", settings: Any = None) -> Variant:
    return Variant(TrainConfig(learner, "bandit", RunConfig(iterations=50), settings), steps, evaluations)


@pytest.mark.parametrize(
    ("evaluations", "stops"), [(1, [50]), (5, [10, 20, 30, 40, 50]), (3, [16, 33, 50]), (50, list(range(1, 51)))]
)
def test_evaluations_are_evenly_spaced_and_the_last_is_at_the_end(evaluations: int, stops: list[int]) -> None:
    assert variant(1, evaluations).stops == stops


@pytest.mark.parametrize(
    ("steps", "inner_steps", "columns"),
    [
        (3, 1, [0, 1, 2, 3]),
        (39, 1, list(range(40))),
        (99, 1, [0, 1, 9, 18, 27, 36, 45, 54, 63, 72, 81, 90, 99]),
        (40, 40, [0, 4, 7, 11, 15, 18, 22, 25, 29, 33, 36, 40]),
    ],
)
def test_of_many_steps_some_are_kept(steps: int, inner_steps: int, columns: list[int]) -> None:
    assert variant(steps, 1, settings=MamlTrpoConfig(inner_steps=inner_steps)).columns == columns


@pytest.mark.parametrize(("steps", "evaluations"), [(-1, 1), (1, 0), (1, 51)])
def test_counts_that_make_no_sense_are_refused(steps: int, evaluations: int) -> None:
    with pytest.raises(InputError, match=f"needs steps >= 0 and 1 to 50 evaluations, not {steps} and {evaluations}"):
        variant(steps, evaluations)


@pytest.mark.parametrize(
    ("learner", "settings", "expected"),
    [
        ("maml-trpo", MamlTrpoConfig(inner_steps=2), 2),
        ("maml-trpo", MamlTrpoConfig(inner_steps=9), 3),
        ("reptile", ReptileConfig(inner_steps=3), 3),
        ("random", None, 3),
    ],
)
def test_the_adaptation_of_training_is_known(learner: str, settings: Any, expected: int) -> None:
    assert variant(3, 1, learner, settings).inner_steps == expected


@pytest.mark.parametrize(("name", "label"), EVERY)
def test_every_variant_can_be_made(name: str, label: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = COMPARISONS[name][label].config
    if model := getattr(config.settings, "model", ""):
        pytest.importorskip("transformers")
        monkeypatch.chdir(tmp_path)
        write_model([model])
    assert config.make_learner().name == config.learner


@pytest.mark.parametrize(("name", "label"), EVERY)
def test_labels_are_names_of_files(name: str, label: str) -> None:
    assert re.fullmatch("[a-z0-9][a-z0-9.-]*", label)


@pytest.mark.parametrize("name", COMPARISONS)
def test_variants_of_a_comparison_meet_the_same_tasks(name: str) -> None:
    configs = [variant.config for variant in COMPARISONS[name].values()]
    goals = [config.split().held_out_tasks("test", 3) for config in configs]
    assert all(bool((other == goals[0]).all()) for other in goals[1:])


def test_the_reference_is_that_of_the_tasks() -> None:
    assert find_comparison_reference("gridnavi") is FAMILIES["gridnavi"].references["varibad"]
    assert find_comparison_reference("no-such-thing") is None


def test_committed_results_have_the_settings_of_today() -> None:
    others = []
    for name, variants in COMPARISONS.items():
        for path in sorted((RESULTS / name).glob("*.json")):
            found, now = read_record(path), variants[path.stem]
            same = found.steps == now.steps and matches(found.config, now.config, "seed")
            if not same or not matches_recording(found.recording, now.recording):
                others.append(f"{name}/{path.name}")
    assert others == []
