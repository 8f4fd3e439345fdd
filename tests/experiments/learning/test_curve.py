import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensordict import TensorDict

from metarl.agents.gradient.maml_trpo import MamlTrpoConfig
from metarl.agents.in_context.pearl_config import PearlConfig
from metarl.errors import InputError, RunError
from metarl.evaluation.evaluate import evaluate
from metarl.experiments.commands.main import guarded
from metarl.experiments.learning import curve as learning_curve
from metarl.experiments.learning.comparisons import COMPARISONS
from metarl.experiments.learning.curve import Job, Options, run
from metarl.experiments.learning.points import point_after
from metarl.experiments.learning.records import Record, read_record
from metarl.experiments.learning.variant import Recording, Variant
from metarl.run.adaptation_curve import AdaptationCurve
from metarl.run.config import TrainConfig
from metarl.run.directory import RunDirectory
from metarl.training.train import train
from tests.runs import numbers, small

TINY = small(None, "navigation-2d", horizon=5)
EXPECTED = Path("results", "tiny", "one.json")


@pytest.fixture(autouse=True)
def _a_comparison_in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(learning_curve, "draw", lambda *_: None)
    other = dataclasses.replace(TINY, settings=MamlTrpoConfig(hidden_sizes=(4,), inner_steps=2))
    compare(monkeypatch, one=Variant(TINY, steps=1, evaluations=2), other=Variant(other, steps=2, evaluations=1))


def compare(monkeypatch: pytest.MonkeyPatch, **variants: Variant) -> None:
    monkeypatch.setitem(COMPARISONS, "tiny", variants)


def measure(**options: Any) -> Record:
    run(Options("tiny", **{"variants": ("one",), "seeds": (1,), "tasks": 3, "out": "results", **options}))
    return read_record(EXPECTED)


def begun(iterations: int, **changes: Any) -> RunDirectory:
    """Train a part of the first run, as ``metarl train`` does."""
    changed = dataclasses.replace(TINY.run, iterations=iterations, out="runs/tiny/one-seed1", **changes)
    return train(dataclasses.replace(TINY, run=changed))


def refuse(*_: Any, **__: Any) -> None:
    raise AssertionError("nothing was to be trained")


def final(record: Record) -> list[list[list[float]]]:
    return [each.final_returns for each in record.runs]


def test_every_seed_and_evaluation_of_every_variant_is_recorded() -> None:
    record = measure(variants=(), seeds=(1, 2))
    assert [(each.seed, [point.iteration for point in each.points]) for each in record.runs] == [
        (1, [2, 4]),
        (2, [2, 4]),
    ]
    (first, _), (second, _) = (each.points for each in record.runs)
    assert first.env_steps == second.env_steps == 2 * 2 * 2 * 3 * 5  # iterations, rollouts, tasks, episodes, steps
    assert first.spent == [0, 15]
    assert first.training_cpu_seconds is not None
    other = read_record(Path("results/tiny/other.json"))
    assert [[point.iteration for point in each.points] for each in other.runs] == [[4], [4]]
    assert (other.steps, other.inner_steps, len(other.tasks)) == (2, 2, 3)


def test_a_comparison_about_success_measures_it_on_both_parts_and_by_the_protocol(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = small(None, "metaworld-ml1", horizon=3, iterations=1)
    asked: list[Path] = []

    def protocol(run: Path) -> dict[str, float]:
        asked.append(run)
        return {"all": 1 / 3}

    compare(monkeypatch, one=Variant(config, steps=1, evaluations=1, protocol=protocol))
    (seed,) = measure().runs
    assert np.shape(seed.final_success) == (3, 2)
    assert np.allclose(np.mean(seed.final_success or [], 0), seed.points[0].success or [])
    assert np.shape(seed.points[0].training_success) == (2,)
    assert (asked, seed.protocol) == ([Path("runs/tiny/one-seed1")], {"all": 0.33333})


def test_all_that_is_known_of_a_comparison_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr(learning_curve, "draw", lambda *given: drawn.append(given))
    run(Options("tiny", ("other",), (1,), tasks=3, out="results"))
    measure()
    name, records, reference, path = drawn[-1]
    assert (name, list(records), reference, path) == ("tiny", ["one", "other"], None, Path("results/tiny.png"))


@pytest.mark.parametrize("episodes", [None, 7])
def test_the_last_evaluation_is_that_of_metarl_evaluate(episodes: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    compare(monkeypatch, one=Variant(TINY, steps=1, evaluations=1, episodes=episodes))
    record = measure()
    assert record.runs[0].episodes == episodes
    assert record.runs[0].points[-1].spent == [0, 5 * (episodes or 3)]
    curve = evaluate("runs/tiny/one-seed1", tasks=3, steps=1, episodes=episodes)
    assert np.allclose(record.runs[0].final_returns, curve.returns, rtol=1e-4)
    compare(monkeypatch, one=Variant(TINY, steps=1, evaluations=1, episodes=5))
    with pytest.raises(InputError, match="has other settings or tasks"):
        measure()
    EXPECTED.unlink()
    assert measure().runs[0].points[-1].spent == [0, 25]  # the finished run is evaluated again


def test_a_file_has_what_it_takes_to_make_it_again() -> None:
    record = measure(seeds=(2, 1))
    assert record.command == "python experiments/learning/curve.py tiny --variants one --seeds 1 2 --tasks 3"
    assert record.config["settings"] == json.loads(json.dumps(TINY.to_json()))["settings"]
    assert [each.versions for each in record.runs] == [TINY.to_json()["versions"]] * 2


def test_a_seed_that_was_measured_is_kept() -> None:
    first = measure(seeds=(2,))
    shutil.rmtree("runs")
    both = measure(seeds=(1, 2))
    assert [each.seed for each in both.runs] == [1, 2]
    assert both.runs[1] == first.runs[0]
    assert [path.name for path in Path("runs/tiny").iterdir()] == ["one-seed1"]


def test_a_whole_run_is_evaluated_and_not_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    first = measure()
    EXPECTED.unlink()
    monkeypatch.setattr(learning_curve, "train", refuse)
    monkeypatch.setattr(learning_curve, "resume", refuse)
    assert measure() == first


def test_a_whole_run_that_was_not_measured_has_its_last_evaluation_only() -> None:
    begun(4)
    record = measure()
    (point,) = record.runs[0].points
    assert (point.iteration, point.training_cpu_seconds) == (4, None)


def test_evaluations_of_other_tasks_are_not_taken() -> None:
    measure()
    EXPECTED.unlink()
    record = measure(tasks=2)
    assert [point.iteration for point in record.runs[0].points] == [4]
    assert np.shape(record.runs[0].final_returns) == (2, 2)


@pytest.mark.parametrize(("iterations", "evaluated"), [(1, [2, 4]), (2, [2, 4]), (3, [4])])
def test_a_part_of_a_run_is_resumed(iterations: int, evaluated: list[int]) -> None:
    begun(iterations)
    record = measure()
    assert [point.iteration for point in record.runs[0].points] == evaluated
    uninterrupted = train(dataclasses.replace(TINY, run=dataclasses.replace(TINY.run, out="whole")))
    assert numbers("runs/tiny/one-seed1") == numbers(uninterrupted.path)


def test_a_run_that_ended_before_its_first_checkpoint_starts_again() -> None:
    begun(2).checkpoint.unlink()
    assert len(measure().runs[0].points) == 2


def test_a_stopped_training_stops_the_command_which_then_resumes(monkeypatch: pytest.MonkeyPatch) -> None:
    def stop_early(config: TrainConfig) -> RunDirectory:
        return train(dataclasses.replace(config, run=dataclasses.replace(config.run, iterations=1)))

    with monkeypatch.context() as patch:
        patch.setattr(learning_curve, "train", stop_early)
        with pytest.raises(RunError, match="one-seed1 was stopped after 1 iterations; run the same command again"):
            measure()
    assert [point.iteration for point in measure().runs[0].points] == [2, 4]


def test_evaluations_before_an_interruption_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = measure(runs="elsewhere")
    EXPECTED.unlink()

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(learning_curve, "resume", interrupt)
        with pytest.raises(KeyboardInterrupt):
            measure()
    assert not EXPECTED.exists()
    again = measure()
    assert final(again) == final(whole)
    assert [each.returns for each in again.runs[0].points] == [each.returns for each in whole.runs[0].points]


@pytest.mark.parametrize("changes", [{"tasks_per_batch": 3}, {"split_seed": 1}, {"iterations": 5}])
def test_a_run_of_other_settings_is_refused(changes: dict[str, Any]) -> None:
    begun(**{"iterations": 2, **changes})
    with pytest.raises(
        InputError, match=r"one-seed1 is a run with other settings; remove it, or choose another --runs"
    ):
        measure()


def test_nothing_is_trained_before_all_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    begun(2, tasks_per_batch=3)
    monkeypatch.setattr(learning_curve, "train", refuse)
    with pytest.raises(InputError, match="other settings"):
        measure(variants=("other", "one"))


def test_a_folder_of_something_else_is_refused() -> None:
    Path("runs/tiny/one-seed1").mkdir(parents=True)
    with pytest.raises(InputError, match="is not a run directory of metarl"):
        measure()


def test_results_of_other_tasks_are_refused() -> None:
    measure()
    with pytest.raises(InputError, match=r"one.json has other settings or tasks; remove it, or choose another --out"):
        measure(tasks=2)


@pytest.mark.parametrize("changes", [{"steps": 2}, {"config": dataclasses.replace(TINY, settings=MamlTrpoConfig())}])
def test_results_of_another_variant_are_refused(changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    measure()
    compare(monkeypatch, one=dataclasses.replace(Variant(TINY, 1, 2), **changes))
    with pytest.raises(InputError, match="has other settings or tasks"):
        measure(seeds=(2,))


def test_a_variant_is_trained_on_what_another_run_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = PearlConfig(hidden_sizes=(8,), updates_per_iteration=1, random_iterations=0)
    pearl = dataclasses.replace(TINY, learner="pearl", settings=settings)
    acting = dataclasses.replace(TINY, learner="random", run=dataclasses.replace(TINY.run, iterations=1), settings=None)
    variant = Variant(pearl, steps=1, evaluations=2, recording=Recording(acting, tasks=3, episodes=6))
    compare(monkeypatch, one=variant)
    record = measure()
    assert [point.env_steps for point in record.runs[0].points] == [0, 0]
    assert record.recording is not None
    assert (record.recording["config"]["learner"], record.recording["tasks"]) == ("random", 3)
    assert "data" not in record.config["run"]
    manifest = json.loads(Path("runs/tiny/one-seed1-data/data.json").read_text())
    assert sum(shard["env_steps"] for shard in manifest["shards"]) == 3 * 6 * 5

    EXPECTED.unlink()
    monkeypatch.setattr(learning_curve, "train", refuse)
    monkeypatch.setattr(learning_curve, "collect", refuse)
    assert measure() == record
    compare(monkeypatch, one=dataclasses.replace(variant, recording=Recording(acting, tasks=4, episodes=6)))
    with pytest.raises(InputError, match="has other settings or tasks"):
        measure(seeds=(2,))


def test_long_parameters_of_tasks_are_left_out() -> None:
    config = small(None, "tabular-mdp")
    job = Job("one", Variant(config, 1, 1), 2, Path("runs"), Path("one.json"))
    assert [set(task) for task in job.tasks] == [set(), set()]


def test_success_is_recorded_where_it_is_reported() -> None:
    directory = begun(1)
    returns = np.array([[1.0, 2.0], [3.0, 4.0]])
    tasks = TensorDict({}, [2])
    curve = AdaptationCurve(tasks, returns, np.array([0.0, 15.0]), 3, "test", np.array([[0.0, 1.0], [0.0, 0.5]]))
    point = point_after(directory, 1, curve, 1.0)
    assert (point.returns, point.success) == ([2, 3], [0, 0.75])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tasks": 0}, "tasks must be at least 1, not 0"),
        ({"seeds": ()}, "a learning curve needs at least one seed"),
        ({"name": "tinny"}, "no comparison is called 'tinny'; did you mean tiny?"),
        ({"variants": ("won",)}, "no variant of tiny is called 'won'; did you mean one?"),
        ({"out": "file/results"}, "cannot write to file/results/tiny: Not a directory; choose another --out"),
    ],
)
def test_bad_input_is_one_line(changes: dict[str, Any], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("file").touch()
    assert guarded(lambda: run(Options(**{"name": "tiny", **changes}))) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert not Path("runs").exists()
