"""RL² and rules that learn each bandit from scratch, in trials of 10, 100 and 500 pulls (Duan et al. 2016, table 1)."""

from typing import Any

from metarl.agents.baselines.bandit_rules import BanditRuleConfig, Rule
from metarl.agents.in_context.rl2 import Rl2Config
from metarl.experiments.learning.variant import Variant, in_context
from metarl.run.config import RunConfig, TrainConfig

# Trials per iteration, by the number of pulls in a trial.
TRIALS = {10: 512, 100: 512, 500: 128}


def by_rule(rule: Rule, preset: str, pulls: int, **settings: Any) -> Variant:
    """Return a variant that acts by a rule, in trials of so many pulls; its training run is only a record."""
    run = RunConfig(iterations=1, preset=preset, tasks_per_batch=1, episodes_per_task=1)
    rules = BanditRuleConfig(rule=rule, episodes_per_trial=pulls, **settings)
    return Variant(TrainConfig("bandit-rule", "bandit", run, rules), pulls - 1, evaluations=1)


def by_rl2(
    preset: str, pulls: int, trials: int, iterations: int = 900, hidden_size: int = 64, learning_rate: float = 8e-3
) -> Variant:
    """Return a variant of RL² in trials of so many pulls, with a number of trials in each iteration."""
    run = RunConfig(iterations=iterations, preset=preset, tasks_per_batch=trials, episodes_per_task=1)
    settings = Rl2Config(
        episodes_per_trial=pulls,
        orthogonal=True,
        hidden_size=hidden_size,
        policy_sizes=(64,),
        learning_rate=learning_rate,
        anneal_iterations=iterations,
        epochs=1,
        minibatches=16,
        entropy_weight=0.005,
    )
    return in_context("rl2", run, settings, "bandit")


def bandits(preset: str) -> dict[str, Variant]:
    """Return the variants on the bandits of a preset."""
    found = {}
    for pulls, trials in TRIALS.items():
        found[f"rl2-n{pulls}"] = by_rl2(preset, pulls, trials)
        found[f"gittins-n{pulls}"] = by_rule("gittins", preset, pulls, discount=1 - 1 / pulls)
        found[f"ucb-n{pulls}"] = by_rule("ucb", preset, pulls)
        found[f"thompson-n{pulls}"] = by_rule("thompson", preset, pulls)
        found[f"greedy-n{pulls}"] = by_rule("greedy", preset, pulls)
    # With more trials in an iteration, a larger memory can take larger steps.
    found["rl2-large-n100"] = by_rl2(preset, 100, 2500, iterations=300, hidden_size=128, learning_rate=1.2e-2)
    return found


COMPARISONS = {f"bandit-{preset}": bandits(preset) for preset in ("k5", "k10", "k50")}
