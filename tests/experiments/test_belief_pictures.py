from pathlib import Path
from typing import Any

import pytest
import torch
from matplotlib.image import imread

from metarl.agents.varibad import VariBad, VariBadConfig
from metarl.config import RunConfig, TrainConfig
from metarl.envs.gridworld import GridNavi
from metarl.errors import InputError
from metarl.experiments.belief_pictures import Beliefs, Options, draw, expected_rewards, run, watch
from metarl.sampler import Sampler
from metarl.training import train
from metarl.trials import Trials


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> str:
    out = tmp_path_factory.mktemp("run")
    train(tiny_gridnavi(out))
    return str(out)


def tiny_gridnavi(out: Path) -> TrainConfig:
    shared = RunConfig(1, tasks_per_batch=2, episodes_per_task=2, horizon=6, track="disabled", out=str(out))
    return TrainConfig("varibad", "gridnavi", shared, VariBadConfig(encoder_size=8, model_updates=1))


@pytest.mark.parametrize(("tasks", "episodes", "panels"), [(3, 2, 9), (1, 1, 1), (2, 1, 50)])
def test_a_picture_is_drawn_as_png(trained: str, tasks: int, episodes: int, panels: int, tmp_path: Path) -> None:
    run(Options(trained, str(tmp_path / "belief.png"), tasks, episodes, panels))
    assert (tmp_path / "belief.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert imread(tmp_path / "belief.png")[..., :3].std() > 0.01


def test_what_was_believed_at_every_step_of_some_episodes(trained: str) -> None:
    beliefs, family = watch(Options(trained, tasks=3, episodes=2))
    assert family.horizon == 6
    assert beliefs.goals.shape == (3, 2)
    assert beliefs.places.shape == (3, 12, 2)
    assert not beliefs.places[:, [0, 6]].any()  # episodes begin in the corner
    assert beliefs.rewards.shape == (3, 12, 5, 5)
    assert beliefs.rewards.isfinite().all()


def test_the_same_seed_gives_the_same_picture(trained: str) -> None:
    one, two, other = (watch(Options(trained, seed=seed))[0] for seed in (0, 0, 1))
    assert torch.equal(one.rewards, two.rewards)
    assert not torch.equal(one.rewards, other.rewards)


def test_every_cells_own_reward_stands_in_its_place(tmp_path: Path) -> None:
    # A decoder that tells of each cell x + 10 y, with rewards in units of 1.
    family, learner = GridNavi(), tiny_gridnavi(tmp_path).make_learner()
    assert isinstance(learner, VariBad)
    decoder: Any = learner.network.decoders["reward"]
    for parameter in decoder.parameters():
        torch.nn.init.zeros_(parameter)
    with torch.no_grad():
        decoder.of_step.weight[0, :2] = torch.tensor([1.0, 10.0])
        for layer in decoder.layers:
            layer[0].weight[0, 0] = 1.0
        decoder.last.weight[0, 0] = 1.0
    rollout = Sampler(family).collect(learner, learner.begin(1), family.all_tasks()[:1], 1, seed=0)
    with torch.no_grad():
        rewards = expected_rewards(learner, family, Trials.of([rollout]), seed=0)
    assert rewards.shape == (1, 15, 5, 5)
    assert rewards[0, 7, 3, 1] == pytest.approx(31.0)  # y = 3, x = 1
    assert rewards[0, 0, 0, 4] == pytest.approx(4.0)


def test_other_beliefs_are_another_picture(tmp_path: Path) -> None:
    goals, places = torch.tensor([[2, 3]]), torch.zeros(1, 6, 2)
    for name, value in (("one", 0.0), ("other", 1.0)):
        draw(Beliefs(goals, places, torch.full((1, 6, 5, 5), value)), 6, 2, tmp_path / f"{name}.png")
    assert (tmp_path / "one.png").read_bytes() != (tmp_path / "other.png").read_bytes()


def test_runs_of_others_are_refused_in_one_line(trained: str, tmp_path: Path) -> None:
    for name, family in (("random", "gridnavi"), ("varibad", "navigation-2d")):
        shared = RunConfig(1, tasks_per_batch=1, episodes_per_task=1, horizon=3, track="disabled")
        config = TrainConfig(name, family, shared)
        path = tmp_path / name
        train(TrainConfig(config.learner, config.family, RunConfig(**{**vars(shared), "out": str(path)})))
        with pytest.raises(InputError, match=f"{name} is {name} on {family}, not varibad on gridnavi"):
            watch(Options(str(path)))


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [
        ("tasks", 0, "tasks must be at least 1, not 0"),
        ("panels", 0, "panels must be at least 1, not 0"),
        ("episodes", -1, "episodes must be at least 1, not -1"),
        ("out", "belief.jpg", r"give a name that ends in \.png, not belief\.jpg"),
    ],
)
def test_options_that_make_no_sense_are_refused(option: str, value: object, told: str) -> None:
    with pytest.raises(InputError, match=told):
        Options("run", **{option: value})  # type: ignore[arg-type]
