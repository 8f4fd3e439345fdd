"""Rules for bandits: what they choose, and that their trials earn what is published."""

import pytest
import torch
from torch import Tensor

from metarl.agents.baselines.bandit_rules import Arms, BanditRule, BanditRuleConfig, OpenArms, chances_to_be_best
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


def test_thompson_ucb_and_greedy_choose_their_arms() -> None:
    even = torch.tensor([1 / 3] * 3)
    for rule in ("thompson", "ucb", "greedy"):
        torch.testing.assert_close(chances(rule, [0, 0, 0], [0, 0, 0]), even)
    # Expected rewards 3/4, 21/32 and 1/2; the third arm was never pulled.
    assert chances("greedy", [2, 30, 0], [2, 20, 0])[0] > 0.99
    assert chances("ucb", [2, 30, 0], [2, 20, 0])[2] > 0.99
    # Bounds 0.5 + √(ln 33 / 2) and 20/30 + √(ln 33 / 30).
    assert chances("ucb", [2, 30], [1, 20])[0] > 0.99
    assert chances("thompson", [2, 30, 0], [2, 20, 0]).amin() > 0.01


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
@pytest.mark.parametrize(("rule", "total"), [("thompson", 76.7), ("ucb", 82.4)])
def test_trials_earn_what_is_published(rule: str, total: float) -> None:
    family = make_family("bandit", "k10")
    learner, sampler = BanditRule(family, BanditRuleConfig(rule=rule), 1, CPU), Sampler(family)  # type: ignore[arg-type]
    session = sampler.session(learner, family.sample_tasks(1000, torch.Generator().manual_seed(0)), 1)
    earned = 0.0
    for pull in range(100):
        earned += float(sampler.run(session, pull).episode_returns().mean())
        session.adapt()
    assert earned == pytest.approx(total, abs=1.5)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"rule": "lucky"}, "rule must be one of thompson, ucb, greedy"),
        ({"exploration": -1.0}, "exploration must be 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        BanditRuleConfig(**settings)  # type: ignore[arg-type]
