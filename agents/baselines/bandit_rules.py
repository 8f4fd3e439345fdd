"""Rules for Bernoulli bandits, which learn each task from scratch: Thompson sampling, UCB1, Gittins indices, greedy.

They ignore observations: where episodes are longer, every step is a pull, and its reward is clipped to [0, 1].
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from gymnasium import spaces
from torch import Tensor

from metarl.agents.baselines.gittins import gittins_indices
from metarl.errors import InputError
from metarl.families.family import TaskFamily
from metarl.families.spaces import one_line
from metarl.learning.learner import Learner, OpenState, register_learner
from metarl.numerics.distributions import Categorical
from metarl.rollouts.rollout import Rollout
from metarl.validation import require_choice, require_counts, require_not_negative, require_unit

Rule = Literal["thompson", "ucb", "gittins", "greedy"]
# Points at which posterior densities are computed.
GRID = 512


@dataclass(frozen=True)
class BanditRuleConfig:
    """Settings of the rules for bandits."""

    rule: Rule = "thompson"
    """thompson: each arm with the probability that it is the best, given the rewards; ucb: the highest upper confidence
    bound; gittins: the highest Gittins index; greedy: the highest expected reward, given the rewards."""
    exploration: float = 0.2
    """Weight of ucb's confidence bound: times the root of ln t / n in pull t, of an arm pulled n times before."""
    discount: float = 0.99
    """Discount of rewards, per pull, for which Gittins indices are the best rule; it is below 1."""
    episodes_per_trial: int = 2
    """Episodes per trial: the budget on one task."""

    def __post_init__(self) -> None:
        require_choice(self, "rule", Rule)
        require_not_negative(self, "exploration")
        require_unit(self, "discount")
        if self.discount == 1:
            raise InputError("discount must be below 1, not 1; for a trial of n pulls, use 1 - 1 / n")
        require_counts(self, "episodes_per_trial")


@dataclass
class Arms:
    """What was seen of K arms in R trials of each of N tasks: numbers of pulls and sums of rewards ``[N, R, K]``."""

    pulls: Tensor
    wins: Tensor

    def expanded(self, trials: int) -> "Arms":
        """Return a copy for this many trials of each task.

        Raises:
            InputError: if there is another number of trials already.
        """
        begun = self.pulls.shape[1]
        if begun not in (1, trials):
            raise InputError(f"{begun} trials of each task need {begun} episodes, not {trials}")
        return Arms(*(value.expand(-1, trials, -1).clone() for value in (self.pulls, self.wins)))

    def add(self, actions: Tensor, rewards: Tensor, valid: Tensor) -> None:
        """Count the ``valid`` ones of T more pulls of each trial in place; all are ``[N, R, T]``."""
        counted = valid.to(rewards.dtype)
        self.pulls.scatter_add_(-1, actions, counted)
        self.wins.scatter_add_(-1, actions, rewards.clamp(0, 1) * counted)


@dataclass
class OpenArms(OpenState[Arms]):
    """Arms that are being pulled."""

    arms: Arms


@register_learner
class BanditRule(Learner):
    """A rule for Bernoulli bandits, which learns each task from scratch."""

    name: ClassVar[str] = "bandit-rule"
    config_class: ClassVar[type] = BanditRuleConfig
    pools_episodes: ClassVar[bool] = False
    baseline: ClassVar[bool] = True
    capturable: ClassVar[bool] = True
    label_settings: ClassVar[Sequence[str]] = ("rule",)
    metrics: ClassVar[Mapping[str, str]] = {"learned_env_steps": "0: it does not learn"}

    def __init__(self, family: TaskFamily, config: BanditRuleConfig, seed: int, device: torch.device) -> None:
        space = family.action_space
        if not isinstance(space, spaces.Discrete):
            raise InputError(f"bandit-rule needs Discrete actions, not those of {one_line(space)}; use rl2")
        self.config, self._device, self._arms = config, device, int(space.n)
        self.inner_steps = self.evaluation_steps = config.episodes_per_trial - 1
        if config.rule == "gittins":
            self._indices = gittins_indices(config.episodes_per_trial * family.horizon, config.discount).to(device)

    def begin(self, num_tasks: int) -> Arms:
        """Return arms that were never pulled."""
        nothing = torch.zeros(num_tasks, 1, self._arms, device=self._device)
        return Arms(nothing, nothing.clone())

    def open(self, state: Arms, episodes: int, generator: torch.Generator, deterministic: bool = False) -> OpenArms:
        """Start the next episode of ``episodes`` trials of each task.

        Raises:
            InputError: if the state has another number of trials.
        """
        return OpenArms(state, state.expanded(episodes))

    def action_distribution(self, working: OpenArms, observations: Tensor) -> Categorical:
        """Return the rule's probabilities of the arms; equally good ones are equally likely."""
        pulls, wins = working.arms.pulls, working.arms.wins
        expected = (1 + wins) / (2 + pulls)
        if self.config.rule == "thompson":
            return Categorical(chances_to_be_best(pulls, wins).clamp(min=1e-12).log())
        if self.config.rule == "ucb":
            pulled = pulls.clamp(min=1)
            bounds = wins / pulled + self.config.exploration * ((1 + pulls.sum(-1, keepdim=True)).log() / pulled).sqrt()
            scores = bounds.masked_fill(pulls == 0, math.inf)
        elif self.config.rule == "gittins":
            # An arm that was pulled more often than a trial has pulls counts as known.
            row = pulls.long().clamp(max=len(self._indices) - 1)
            scores = self._indices[row, wins.round().long().minimum(row)].where(row == pulls, expected)
        else:
            scores = expected
        best = (scores == scores.amax(-1, keepdim=True)).to(pulls.dtype)
        return Categorical((best / best.sum(-1, keepdim=True)).clamp(min=1e-12).log())

    def observe(self, working: OpenArms, actions: Tensor, rewards: Tensor, ended: Tensor) -> None:
        """Count the pulls."""
        one = actions.unsqueeze(-1), rewards.unsqueeze(-1)
        working.arms.add(*one, torch.ones_like(one[1], dtype=torch.bool))

    def adapt(self, state: Arms, rollout: Rollout) -> Arms:
        """Count one more episode of every trial.

        Raises:
            InputError: if the state has another number of trials.
        """
        arms = state.expanded(rollout.rewards.shape[1])
        arms.add(rollout.actions, rollout.rewards, rollout.valid)
        return arms

    def update(self, rollouts: Sequence[Rollout]) -> dict[str, float]:
        """Learn nothing across tasks."""
        return {"learned_env_steps": 0.0}

    def state_dict(self) -> dict[str, Any]:
        """Return nothing."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Do nothing."""


def chances_to_be_best(pulls: Tensor, wins: Tensor) -> Tensor:
    """Return how likely each arm is to be the best ``[..., K]``, given numbers of pulls and wins ``[..., K]``.

    Reward probabilities are independent, uniform before the first pull, and thus distributed as Beta(1 + wins,
    1 + losses). Arm k's chance is the integral of its density times the other arms' distribution functions.
    """
    points = (torch.arange(GRID, device=pulls.device, dtype=pulls.dtype) + 0.5) / GRID
    logs = wins.unsqueeze(-1) * points.log() + (pulls - wins).unsqueeze(-1) * (1 - points).log()
    masses = logs.softmax(-1)
    below = (masses.cumsum(-1) - masses / 2).clamp(min=1e-12).log()
    others = (below.sum(-2, keepdim=True) - below).exp()
    chances = (masses * others).sum(-1)
    return chances / chances.sum(-1, keepdim=True)
