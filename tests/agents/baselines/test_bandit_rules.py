"""Rules for bandits: what they choose, and that their trials earn what is published."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from metarl.agents.baselines.bandit_rules import Arms, BanditRule, BanditRuleConfig, OpenArms, chances_to_be_best
from metarl.agents.baselines.gittins import gittins_indices
from metarl.errors import InputError
from metarl.families.family import make_family
from metarl.sampling.sampler import Sampler

CPU = torch.device("cpu")


def chances(rule: str, pulls: list[float], wins: list[float]) -> Tensor:
    """Return the probabilities of a rule's arms."""
    learner = BanditRule(make_family("bandit", arms=len(pulls)), BanditRuleConfig(rule=rule, exploration=1.0), 1, CPU)  # type: ignore[arg-type]
    arms = Arms(torch.tensor([[pulls]]), torch.tensor([[wins]]))
    return learner.action_distribution(OpenArms(arms, arms), torch.zeros(1, 1, 1)).logits.softmax(-1)[0, 0]


def test_chances_to_be_best_by_hand() -> None:
    # Of Beta(2, 1) and Beta(1, 1): P(x > y) = ∫ 2x · x dx = 2/3.
    found = chances_to_be_best(torch.tensor([1.0, 0.0]), torch.tensor([1.0, 0.0]))
    torch.testing.assert_close(found, torch.tensor([2 / 3, 1 / 3]), rtol=0, atol=1e-4)


def test_chances_to_be_best_are_those_of_draws() -> None:
    pulls, wins = torch.tensor([10.0, 40.0, 0.0]), torch.tensor([7.0, 24.0, 0.0])
    draws = torch.distributions.Beta(1 + wins, 1 + pulls - wins).sample((100_000,))
    shares = torch.bincount(draws.argmax(-1), minlength=3) / len(draws)
    torch.testing.assert_close(chances_to_be_best(pulls, wins), shares, rtol=0, atol=0.01)


def test_gittins_indices_are_the_published_ones() -> None:
    # As tables have them (Gittins 1989), by the counts of a Beta distribution that begins with one win and one loss.
    found = gittins_indices(2, 0.9)
    assert found[0, 0].item() == pytest.approx(0.7029, abs=2e-4)
    assert found[1, :2].tolist() == pytest.approx([0.5001, 0.8001], abs=2e-4)
    assert found[2].tolist() == pytest.approx([0.3796, 0.6346, 0.8452], abs=2e-4)
    assert gittins_indices(10, 0.99)[0, 0].item() == pytest.approx(0.8699, abs=2e-4)


@given(discount=st.floats(0, 0.99))
def test_an_index_is_above_the_expected_reward_and_rises_with_wins(discount: float) -> None:
    indices = gittins_indices(4, discount)
    for pulls in range(5):
        row = indices[pulls, : pulls + 1]
        expected = (1 + torch.arange(pulls + 1.0)) / (2 + pulls)
        # Pulls ahead are worth nothing without a future.
        assert (row >= expected - 1e-3).all()
        assert (row.diff() > 0).all()
        if discount == 0:
            torch.testing.assert_close(row, expected, rtol=0, atol=1e-3)


def test_the_rules_choose_their_arms() -> None:
    even = torch.tensor([1 / 3] * 3)
    for rule in ("thompson", "ucb", "gittins", "greedy"):
        torch.testing.assert_close(chances(rule, [0, 0, 0], [0, 0, 0]), even)
    # Expected rewards 3/4, 21/32 and 1/2; the third arm was never pulled.
    assert chances("greedy", [2, 30, 0], [2, 20, 0])[0] > 0.99
    assert chances("ucb", [2, 30, 0], [2, 20, 0])[2] > 0.99
    # Bounds 0.5 + √(ln 33 / 2) and 20/30 + √(ln 33 / 30).
    assert chances("ucb", [2, 30], [1, 20])[0] > 0.99
    assert chances("thompson", [2, 30, 0], [2, 20, 0]).amin() > 0.01
    # Indices 0.87 of no pull and 0.70 of a loss; of arms with more pulls than a trial has, expected rewards.
    assert chances("gittins", [1, 0, 1], [0, 0, 0])[1] > 0.99
    assert chances("gittins", [0, 8, 9], [0, 7, 9])[2] > 0.99


def test_a_trial_counts_its_pulls_whether_acted_or_read() -> None:
    family = make_family("bandit")
    learner, sampler = BanditRule(family, BanditRuleConfig(), 1, CPU), Sampler(family)
    tasks = family.sample_tasks(3, torch.Generator().manual_seed(0))
    session = sampler.session(learner, tasks, 2)
    totals = torch.zeros(3, 2)
    for pull in range(5):
        totals += sampler.run(session, pull).episode_returns()
        session.adapt()
    assert (session.state.pulls.sum(-1) == 5).all()
    assert torch.equal(session.state.wins.sum(-1), totals)
    with pytest.raises(InputError, match="2 trials of each task need 2 episodes, not 3"):
        learner.open(session.state, 3, torch.Generator())


@pytest.mark.slow
@pytest.mark.parametrize(("rule", "total"), [("thompson", 76.7), ("ucb", 82.4), ("gittins", 82.8)])
def test_trials_earn_what_is_published(rule: str, total: float) -> None:
    family = make_family("bandit", "k10")
    learner, sampler = BanditRule(family, BanditRuleConfig(rule=rule, episodes_per_trial=100), 1, CPU), Sampler(family)  # type: ignore[arg-type]
    session = sampler.session(learner, family.sample_tasks(1000, torch.Generator().manual_seed(0)), 1)
    earned = 0.0
    for pull in range(100):
        earned += float(sampler.run(session, pull).episode_returns().mean())
        session.adapt()
    assert earned == pytest.approx(total, abs=1.5)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"rule": "lucky"}, "rule must be one of thompson, ucb, gittins, greedy"),
        ({"exploration": -1.0}, "exploration must be 0"),
        ({"discount": 1.5}, r"discount must lie in \[0, 1\]"),
        ({"discount": 1.0}, "discount must be below 1, not 1; for a trial of n pulls, use 1 - 1 / n"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        BanditRuleConfig(**settings)  # type: ignore[arg-type]
