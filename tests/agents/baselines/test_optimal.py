"""Returns of the optimal policy, compared with published values and with all other action sequences."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from gymnasium.vector import AutoresetMode
from tensordict import TensorDict
from torch import Tensor

import metarl  # noqa: F401 (registers families)
from metarl.agents.baselines.optimal import Certain, OptimalConfig, OptimalPolicy
from metarl.envs.basic.tabular import TabularMDP
from metarl.errors import InputError
from metarl.evaluation.evaluate import adaptation_curve
from metarl.experiments.commands.main import main
from metarl.families.family import FAMILIES, TaskFamily, make_family
from metarl.families.solved import SolvedFamily
from metarl.numerics.distributions import DiagonalGaussian, Distribution
from metarl.rollouts.rollout import Rollout
from metarl.run.config import RunConfig, TrainConfig
from metarl.sampling.sampler import Sampler
from metarl.worlds.vector_env import TaskVectorEnv
from tests.fakes import DrawingActor

CPU = torch.device("cpu")
SOLVED = {name for name, family in FAMILIES.items() if issubclass(family, SolvedFamily)}


def make(family: TaskFamily) -> tuple[OptimalPolicy, Sampler]:
    view = OptimalPolicy.view(family, OptimalConfig())
    return OptimalPolicy(view, OptimalConfig(), 1, CPU), Sampler(view)


def collect(family: TaskFamily, tasks: TensorDict, episodes: int = 1, deterministic: bool = False) -> Rollout:
    policy, sampler = make(family)
    return sampler.collect(policy, policy.begin(len(tasks)), tasks, episodes, 1, deterministic)


def drawn(family: TaskFamily, count: int) -> TensorDict:
    return family.sample_tasks(count, torch.Generator().manual_seed(0))


# --- Values of docs/families-basic.md, docs/families-gridworlds.md and shared/reference/tasks.md ----------------------

# Episodes of a trial, value of the trial, and how far off it may be as it is rounded or was simulated.
VALUES = [
    ("bandit", "k10", 100, 90.9, 0.05),
    ("bandit", "k5", 100, 83.3, 0.05),
    ("bandit", "k5", 10, 8.33, 0.005),
    ("tabular-mdp", "rl2", 10, 218.0, 0.5),
    ("navigation-2d", "maml", 1, -0.51, 0.005),
    ("sparse-point", "pearl", 1, 13.38, 0.005),
    ("sparse-point", "varibad", 1, 93.38, 0.005),
    ("sparse-point", "ni", 1, 51.8, 0.05),
    ("gridnavi", "varibad", 1, 11.07, 0.005),
    ("four-rooms", "11x11", 1, 29.25, 0.005),
    ("four-rooms", "7x7-egocentric", 1, 18.94, 0.005),
    ("random-mazes", "9x9", 1, 47.0, 0.5),
    ("random-mazes", "13x13-egocentric", 1, 99.0, 0.5),
    ("moving-goal", "5x5", 1, 16.67, 0.005),
    ("moving-goal", "9x9-egocentric", 1, 32.29, 0.005),
]


def test_the_table_has_every_family_that_is_solved() -> None:
    assert {name for name, *_ in VALUES} == SOLVED - {"gridnavi-image"}  # whose tasks and rewards are gridnavi's


@pytest.mark.parametrize(("name", "preset", "episodes", "value", "slack"), VALUES)
def test_it_earns_what_is_known(name: str, preset: str, episodes: int, value: float, slack: float) -> None:
    family = make_family(name, preset)
    every = family.all_tasks()
    totals = collect(family, drawn(family, 2000) if every is None else every, episodes).rewards.sum((1, 2))
    # Four standard errors, where tasks are drawn.
    chance = 4 * totals.std().item() / len(totals) ** 0.5 if every is None else 0.0
    assert totals.mean().item() == pytest.approx(value, abs=chance + slack)


# --- Nothing else earns more ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("gridnavi", {"size": 3, "horizon": 5}),
        ("four-rooms", {"size": 5, "horizon": 6}),
        ("random-mazes", {"size": 5, "horizon": 6}),
        ("moving-goal", {"size": 3, "horizon": 5}),
    ],
)
def test_no_moves_earn_more(name: str, settings: dict[str, Any]) -> None:
    family = make_family(name, **settings)
    tasks = drawn(family, 5)
    moves = torch.cartesian_prod(*[torch.arange(5)] * family.horizon)
    env = TaskVectorEnv(family, len(tasks) * len(moves), autoreset_mode=AutoresetMode.DISABLED)
    env.set_tasks(tasks.repeat_interleave(len(moves), 0))
    env.reset(seed=0)
    returns = torch.stack([env.step(each.repeat(len(tasks)))[1] for each in moves.T]).sum(0)
    best = returns.view(len(tasks), -1).amax(1)
    assert len(best.unique()) > 1
    torch.testing.assert_close(collect(family, tasks).episode_returns()[:, 0], best)


def worth(tasks: TensorDict, policy: Tensor) -> Tensor:
    """Return what deterministic actions ``[N, T, S]`` (row t - 1 for t steps left) earn from state 0, ``[N]``."""
    values = torch.zeros_like(tasks["means"][..., 0])
    for actions in policy.unbind(1):
        transitions = tasks["transitions"].take_along_dim(actions[:, :, None, None], 2).squeeze(2)
        values = (
            tasks["means"].take_along_dim(actions[..., None], 2).squeeze(2) + (transitions @ values[..., None])[..., 0]
        )
    return values[:, 0]


def test_no_policy_of_an_mdp_is_worth_more() -> None:
    family = TabularMDP(states=2, actions=2, horizon=3)
    tasks = drawn(family, 50)
    policies = torch.cartesian_prod(*[torch.arange(2)] * 6).view(-1, 3, 2)
    every = torch.stack([worth(tasks, policy.expand(len(tasks), 3, 2)) for policy in policies])
    plan = family.plan(family.initial_state(tasks, torch.Generator()), tasks)
    torch.testing.assert_close(worth(tasks, plan), every.amax(0))


def test_the_last_step_of_an_mdp_is_greedy_and_the_one_before_is_not() -> None:
    # From state 0 the first action gives 1 and stays, the second gives 0 and leads to state 1, which gives 10.
    transitions = [[[1, 0], [0, 1]], [[0, 1], [0, 1]]]
    family = TabularMDP(states=2, actions=2, horizon=2)
    task = family.make_task({"means": [[1, 0], [10, 9]], "transitions": transitions})
    assert collect(family, task).actions[0, 0].tolist() == [1, 0]
    assert collect(TabularMDP(states=2, actions=2, horizon=1), task).actions[0, 0].tolist() == [0]


class Swaying(DrawingActor):
    """The optimal policy with noise that grows from episode to episode, starting with none."""

    def action_distribution(self, working: Any, observations: Tensor) -> Distribution:
        scales = torch.linspace(0, 2, observations.shape[1])[:, None].expand_as(observations)
        return DiagonalGaussian(observations, scales.log().clamp(min=-100))


@pytest.mark.parametrize(
    ("name", "preset"), [("navigation-2d", "maml"), ("sparse-point", "pearl"), ("sparse-point", "varibad")]
)
def test_no_swaying_pays(name: str, preset: str) -> None:
    family = make_family(name, preset)
    returns = make(family)[1].collect(Swaying(), None, drawn(family, 40), 100, seed=1).episode_returns()
    assert (returns[:, 1:] <= returns[:, :1] + 1e-4).all()
    assert returns[:, -1].mean() < returns[:, 0].mean() - 0.2


# --- As a learner -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["gridnavi", "navigation-2d", "four-rooms"])
def test_in_the_same_place_and_task_it_does_the_same(name: str) -> None:
    family = make_family(name)
    rollout = collect(family, drawn(family, 6), episodes=3)
    assert (rollout.actions == rollout.actions[:, :1]).all()
    certain = collect(family, drawn(family, 6), episodes=3, deterministic=True)
    assert torch.equal(certain.actions, rollout.actions)
    assert (rollout.log_probs == 0).all()


def test_adaptation_and_updates_change_nothing() -> None:
    family = make_family("gridnavi")
    policy, sampler = make(family)
    tasks = drawn(family, 4)
    curve = adaptation_curve(policy, sampler, tasks, steps=2, episodes=2)
    assert (curve.returns == curve.returns[:, :1]).all()
    assert policy.update([collect(family, tasks)]) == {"learned_env_steps": 0.0}
    assert policy.state_dict() == {}


@pytest.mark.parametrize("name", sorted(set(FAMILIES) - SOLVED))
def test_other_families_are_refused(name: str) -> None:
    with pytest.raises(InputError) as refusal:
        TrainConfig("optimal", name)
    assert "\n" not in str(refusal.value)
    assert f"not in {name}" in str(refusal.value)
    assert all(each in str(refusal.value) for each in SOLVED)


def test_a_refusal_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "optimal", "key-and-door"]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert said[0].startswith("metarl: optimal acts in families whose best actions are known (bandit, ")


def test_it_needs_its_own_view() -> None:
    with pytest.raises(InputError, match=r"the family that OptimalPolicy\.view returns"):
        OptimalPolicy(make_family("gridnavi"), OptimalConfig(), 1, CPU)


def test_its_tasks_are_those_of_every_learner() -> None:
    one, other = (TrainConfig(learner, "gridnavi", RunConfig()).split() for learner in ("optimal", "maml-trpo"))
    assert one.fingerprint() == other.fingerprint()


@pytest.mark.parametrize(
    ("action", "others", "expected"),
    [
        (torch.tensor([1, 2]), torch.tensor([1, 0]), [0.0, -torch.inf]),
        (torch.tensor([[0.5, 0.0], [0.5, 0.0]]), torch.tensor([[0.5, 0.0], [0.5, 0.1]]), [0.0, -torch.inf]),
    ],
)
def test_one_action_is_certain(action: Tensor, others: Tensor, expected: Sequence[float]) -> None:
    certain = Certain(action)
    assert certain.log_prob(others).tolist() == expected
    assert certain.kl(Certain(others)).tolist() == [-value for value in expected]
    assert torch.equal(certain.sample(torch.Generator()), certain.mode())


@pytest.mark.parametrize("name", ["tabular-mdp", "sparse-point"])
def test_it_is_trained_and_evaluated_like_any_other(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = "--iterations 2 --tasks-per-batch 2 --episodes-per-task 3 --track disabled --out run"
    assert main(["train", "optimal", name, *words.split()]) == 0
    assert main(["evaluate", "run", "--tasks", "3", "--steps", "1"]) == 0
