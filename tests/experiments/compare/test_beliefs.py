from typing import Any

import pytest
import torch
from numpy import asarray

from metarl.agents.in_context.varibad import VariBad
from metarl.envs.grid.gridnavi import GridNavi
from metarl.evaluation.evaluate import load_run
from metarl.experiments.compare.beliefs import Beliefs, expected_rewards, has_beliefs, make_figure, observe_beliefs
from metarl.rollouts.trials import Trials
from metarl.run.config import TrainConfig
from metarl.sampling.sampler import Sampler
from tests.experiments.compared import trained


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> str:
    out = tmp_path_factory.mktemp("run")
    return trained(out, "varibad", "gridnavi", 1, horizon=6, encoder_size=8, model_updates=1)


def watched(run: str, seed: int = 0) -> Beliefs:
    config, learner, _ = load_run(run)
    return observe_beliefs(config, learner, config.split().held_out_tasks("test", 3), 2, seed)


def test_what_was_believed_at_every_step_of_some_episodes(run: str) -> None:
    beliefs = watched(run)
    assert beliefs.horizon == 6
    tasks = load_run(run)[0].split().held_out_tasks("test", 3)
    assert beliefs.goals == [(x, y) for x, y in tasks["goal"].tolist()]
    assert beliefs.positions.shape == (3, 12, 2)
    assert not beliefs.positions[:, [0, 6]].any()  # episodes begin in the corner
    assert beliefs.rewards.shape == (3, 12, 5, 5)
    assert beliefs.rewards.isfinite().all()


def test_the_same_seed_gives_the_same_beliefs(run: str) -> None:
    one, two, other = (watched(run, seed) for seed in (0, 0, 1))
    assert torch.equal(one.rewards, two.rewards)
    assert not torch.equal(one.rewards, other.rewards)


def test_every_cells_own_reward_is_in_its_place(run: str) -> None:
    # A decoder that predicts x + 10 y for each cell, with rewards in units of 1.
    config, _, _ = load_run(run)
    family, learner = GridNavi(), config.make_learner()
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
        rewards = expected_rewards(learner, family.staying(), Trials.of([rollout]), seed=0)
    assert rewards.shape == (1, 15, 5, 5)
    assert rewards[0, 7, 3, 1] == pytest.approx(31.0)  # y = 3, x = 1
    assert rewards[0, 0, 0, 4] == pytest.approx(4.0)


def test_a_row_shows_steps_of_both_episodes_under_the_path_so_far() -> None:
    positions = torch.tensor([[[0, 0], [1, 0], [2, 0], [0, 0], [0, 1], [0, 2]]])
    rewards = torch.arange(6.0).view(1, 6, 1, 1).expand(1, 6, 5, 5)
    *panels, _ = make_figure(Beliefs([(2, 3)], positions, rewards, 3, (0.0, 5.0)), 2).axes
    assert [axes.get_title() for axes in panels] == ["episode 1\nstep 0", "episode 2\nstep 2"]
    assert [asarray(axes.images[0].get_array()).max() for axes in panels] == [0, 5]
    path = panels[1].lines[1]
    assert [[*path.get_xdata()], [*path.get_ydata()]] == [[0, 0, 0], [0, 1, 2]]


def test_a_task_without_a_goal_has_no_star() -> None:
    positions, rewards = torch.zeros(1, 2, 2), torch.zeros(1, 2, 5, 5)
    panel, _ = make_figure(Beliefs([None], positions, rewards, 2, (0.0, 1.0)), 1).axes
    assert [line.get_marker() for line in panel.lines] == ["None", "o"]


@pytest.mark.parametrize(
    ("learner", "family", "expected"),
    [("varibad", "gridnavi", True), ("random", "gridnavi", False), ("varibad", "navigation-2d", False)],
)
def test_beliefs_need_a_model_of_rewards_and_a_grid(learner: str, family: str, expected: bool) -> None:
    config = TrainConfig(learner, family)
    assert has_beliefs(config.make_family(), config.make_learner()) is expected
