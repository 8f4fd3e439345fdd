import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from metarl.agents.in_context.pearl_config import PearlConfig
from metarl.errors import InputError
from metarl.experiments.commands.collect import CollectOptions, collect
from metarl.families.splits import task_keys
from metarl.rollouts.rollout import Rollout
from metarl.run.config import RunConfig, TrainConfig
from metarl.run.directory import RunDirectory
from metarl.run.recorded import Description, RecordedData, load_recorded, save_recorded, side_by_side
from metarl.sampling.sampler import Sampler
from metarl.training.train import resume, train
from tests.fakes import made_up_rollout
from tests.metarl.rollouts.test_rollout import shortened
from tests.runs import numbers, small, tiny

DESCRIPTION = Description("navigation-2d", "observations", "actions")
TENSORS = ("observations", "actions", "rewards", "terminated", "truncated", "valid", "final_observations")


def ended(rollout: Rollout, length: int) -> Rollout:
    """Cut all episodes to ``length`` steps, and keep the tensors as short."""
    cut = shortened(rollout, length)
    truncated = torch.zeros_like(cut.truncated)
    truncated[..., length - 1] = True
    short = replace(cut, truncated=truncated).map(lambda value: value)
    steps = {name: getattr(short, name)[:, :, :length] for name in TENSORS if name != "final_observations"}
    return replace(short, **steps, log_probs=None, distribution=None)


def test_rollouts_are_saved_and_loaded_whatever_their_lengths(tmp_path: Path) -> None:
    first, second = ended(made_up_rollout(2, 3, 6, seed=1), 6), ended(made_up_rollout(1, 3, 6, seed=2), 4)
    save_recorded(tmp_path / "data", DESCRIPTION, [first, second])
    found = load_recorded(tmp_path / "data")
    assert found.description == DESCRIPTION
    assert found.rollout.num_tasks == 3
    assert found.rollout.env_steps == 2 * 3 * 6 + 3 * 4
    assert torch.equal(found.rollout.tasks["goal"], torch.cat([first.tasks["goal"], second.tasks["goal"]]))
    for name in TENSORS:
        assert torch.equal(getattr(found.rollout, name)[:2], getattr(first, name)), name
    assert torch.equal(found.rollout.rewards[2:, :, :4], second.rewards)
    assert not found.rollout.rewards[2:, :, 4:].any()
    assert found.rollout.log_probs is None


def test_success_is_recorded_where_it_is_known(tmp_path: Path) -> None:
    rollout = replace(made_up_rollout(), success=torch.rand(2, 3, 6) < 0.5)
    save_recorded(tmp_path / "data", DESCRIPTION, [rollout])
    found = load_recorded(tmp_path / "data").rollout
    assert found.success is not None
    assert torch.equal(found.success, rollout.success)


def test_side_by_side_are_the_episodes_of_all_rollouts() -> None:
    one, other = ended(made_up_rollout(seed=1), 6), ended(made_up_rollout(seed=2), 3)
    joined = side_by_side([one, other])
    assert torch.equal(joined.episode_returns(), torch.cat([one.episode_returns(), other.episode_returns()], 1))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return recorded episodes of 5 training tasks, 2 x 3 of each, which these tests only read."""
    folder = tmp_path_factory.mktemp("recorded")
    train(tiny("pearl", folder / "run", iterations=1))
    collect(CollectOptions(str(folder / "run"), str(folder / "data"), tasks=5, episodes=3))
    return folder / "data"


def offline(data: Path, out: Path, iterations: int = 3, **run: Any) -> TrainConfig:
    settings = PearlConfig(hidden_sizes=(8,), updates_per_iteration=2, batch_size=4)
    return replace(tiny("pearl", out, iterations=iterations, data=str(data), **run), settings=settings)


def test_collecting_says_what_was_recorded(data: Path) -> None:
    description = load_recorded(data).description
    assert (description.family, description.part) == ("navigation-2d", "train")
    assert description.split_hash == tiny("pearl", "anywhere").split().fingerprint()
    assert load_recorded(data).rollout.rewards.shape == (5, 6, 6)
    expected = tiny("pearl", "anywhere").split().held_out_tasks("train", 5)
    assert task_keys(load_recorded(data).rollout.tasks) == task_keys(expected)


def test_an_iteration_meets_every_task_as_often_and_no_episode_twice(data: Path) -> None:
    found = load_recorded(data)
    met: list[bytes] = []
    for iteration in range(5):
        rollouts = found.draw(2, 3, 2, seed=1, iteration=iteration)
        assert [rollout.rewards.shape for rollout in rollouts] == [(2, 3, 6)] * 2
        met += task_keys(rollouts[0].tasks)
        joined = side_by_side(rollouts)
        for task, key in enumerate(task_keys(joined.tasks)):
            own = found.rollout.episode_returns()[task_keys(found.rollout.tasks).index(key)]
            assert sorted(joined.episode_returns()[task].tolist()) == sorted(own.tolist())
    assert all(met.count(key) == 2 for key in task_keys(found.rollout.tasks))


def test_more_tasks_than_there_are_repeat_some(data: Path) -> None:
    assert len(set(task_keys(load_recorded(data).draw(12, 1, 1, 0, 0)[0].tasks))) == 5


def test_too_few_episodes_are_refused(data: Path) -> None:
    with pytest.raises(InputError, match=r"6 episodes of each task, but an iteration needs 2 x 4; .*-task 3 or fewer"):
        load_recorded(data).draw(2, 4, 2, 0, 0)


def test_pearl_trains_on_recorded_episodes_without_an_environment_step(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample, iterations = Sampler.run, []

    def watched(self: Sampler, *given: Any) -> Rollout:
        iterations.append(len(RunDirectory(tmp_path / "run").read_metrics()))
        return sample(self, *given)

    monkeypatch.setattr(Sampler, "run", watched)
    train(offline(data, tmp_path / "run"))
    assert set(iterations) == {2}  # only the validation at the end, before the third row is written
    rows = numbers(tmp_path / "run")
    assert [row["env_steps"] for row in rows] == [0, 0, 0]
    assert len({row["critic_loss"] for row in rows}) == 3


def test_a_resumed_run_on_recorded_episodes_ends_at_the_same_numbers(data: Path, tmp_path: Path) -> None:
    train(offline(data, tmp_path / "straight", 4))
    train(offline(data, tmp_path / "resumed", 2))
    resume(tmp_path / "resumed", 4)
    assert numbers(tmp_path / "resumed") == numbers(tmp_path / "straight")


def test_other_episodes_than_a_run_was_started_with_are_refused(data: Path, tmp_path: Path) -> None:
    found = load_recorded(data)
    save_recorded(tmp_path / "data", found.description, [found.rollout])
    train(offline(tmp_path / "data", tmp_path / "run", 1))
    (tmp_path / "data" / "data.json").unlink()
    (tmp_path / "data" / "shard-00000.npz").unlink()
    changed = replace(found.rollout, rewards=found.rollout.rewards + 1)
    save_recorded(tmp_path / "data", found.description, [changed])
    with pytest.raises(InputError, match="no longer contains the episodes that the run was started with"):
        resume(tmp_path / "run", 2)


def test_random_actions_are_recorded_as_well(data: Path, tmp_path: Path) -> None:
    options = CollectOptions(str(data.parent / "run"), str(tmp_path / "data"), tasks=3, episodes=2, policy="random")
    words = collect(options)
    assert words.startswith("3 train tasks, 4 episodes of each, 72 env steps; mean return ")
    assert load_recorded(tmp_path / "data").rollout.actions.abs().max() <= 1
    train(offline(tmp_path / "data", tmp_path / "run", 1, episodes_per_task=2))


def refusal(data: RecordedData, out: Path, **run: Any) -> str:
    config = offline(data.path, out, **run)
    with pytest.raises(InputError) as refused:
        data.check(config.make_family(), config.split().fingerprint())
    return str(refused.value)


def test_what_does_not_fit_the_run_is_refused(data: Path, tmp_path: Path) -> None:
    found = load_recorded(data)

    def changed(**known: Any) -> RecordedData:
        return replace(found, description=replace(found.description, **known))

    assert "was recorded on sparse-point and cannot be used for" in refusal(changed(family="sparse-point"), tmp_path)
    assert "is Discrete(3), but that of the run is" in refusal(changed(observation_space="Discrete(3)"), tmp_path)
    assert "contains test tasks, which must not be trained on" in refusal(changed(part="test"), tmp_path)
    assert "recorded with another split" in refusal(found, tmp_path, split_seed=1)
    assert "recorded with another split" in refusal(found, tmp_path, horizon=7)
    assert "episodes of 6 steps, but those of the run have at most 5" in refusal(
        changed(split_hash=None), tmp_path, horizon=5
    )


def test_a_refused_run_leaves_no_folder(data: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="another split"):
        train(offline(data, tmp_path / "run", split_seed=1))
    assert not (tmp_path / "run").exists()


def test_a_learner_that_cannot_learn_from_them_says_who_can(data: Path) -> None:
    with pytest.raises(InputError, match=r"maml-trpo must collect its own episodes; --data works with .*, pearl, "):
        small(data=str(data))


@pytest.mark.parametrize("run", [{"task_source": "plr"}, {"train_tasks": 3}])
def test_recorded_episodes_bring_their_own_tasks(run: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="--data determines the tasks"):
        RunConfig(data="anywhere", **run)


def copied(data: Path, folder: Path) -> Path:
    folder.mkdir()
    for path in data.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def test_a_missing_shard_is_named(data: Path, tmp_path: Path) -> None:
    folder = copied(data, tmp_path / "data")
    (folder / "shard-00000.npz").unlink()
    with pytest.raises(InputError, match=r"shard-00000.npz is missing"):
        load_recorded(folder)


def test_a_damaged_shard_is_named(data: Path, tmp_path: Path) -> None:
    folder = copied(data, tmp_path / "data")
    shard = folder / "shard-00000.npz"
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"shard-00000.npz is damaged"):
        load_recorded(folder)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("no json", "is damaged or was not written by metarl"),
        ("[]", "is damaged or was not written by metarl"),
        (json.dumps({"format": "metarl data 0"}), "has the format 'metarl data 0'"),
        (json.dumps({"format": "metarl data 1", "shards": []}), "is damaged or was not written by metarl"),
    ],
)
def test_a_manifest_that_is_not_one_is_refused(content: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "data.json").write_text(content)
    with pytest.raises(InputError, match=words):
        load_recorded(tmp_path)


def test_a_folder_without_a_manifest_is_no_data_set(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"contains no recorded episodes .no data.json"):
        load_recorded(tmp_path)


def test_a_folder_in_use_is_left_as_it_was(data: Path) -> None:
    before = {path.name: path.read_bytes() for path in data.iterdir()}
    with pytest.raises(InputError, match="is not empty; choose another --out"):
        save_recorded(data, DESCRIPTION, [])
    assert {path.name: path.read_bytes() for path in data.iterdir()} == before
