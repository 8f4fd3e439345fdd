"""Learners from recorded data, and the rules that act from scratch in bandits, in comparisons with others."""

import dataclasses
from typing import Any

from metarl.agents.baselines.sb3.algorithms import DqnConfig
from metarl.agents.in_context.algorithm_distillation import AlgorithmDistillationConfig
from metarl.agents.in_context.dpt import DptConfig
from metarl.agents.in_context.rl2 import Rl2Config
from metarl.experiments.learning.bandit_comparisons import by_rule
from metarl.experiments.learning.variant import Recording, Variant
from metarl.run.config import RunConfig, TrainConfig

# A run whose one iteration is only a record: its learner learns each task from scratch, or does not learn at all.
ONCE = RunConfig(iterations=1, tasks_per_batch=1, episodes_per_task=1)
PULLS = 10
BANDIT_RUN = RunConfig(iterations=300, preset="k5", tasks_per_batch=512, episodes_per_task=1)
SMALL: dict[str, Any] = {"hidden_size": 32, "heads": 2, "learning_rate": 3e-3}
PULLING: dict[str, Any] = {
    **SMALL,
    "layers": 1,
    "episodes_per_trial": PULLS,
    "minibatches": 8,
    "anneal_iterations": BANDIT_RUN.iterations,
}
PULLING_RL2 = Rl2Config(
    episodes_per_trial=PULLS,
    learning_rate=8e-3,
    anneal_iterations=BANDIT_RUN.iterations,
    epochs=1,
    minibatches=8,
    entropy_weight=0.005,
)
# Two layers of random weights, which ``experiments/tools/tiny_language_model.py`` writes; half as many trials.
TINY_MODEL = "runs/tiny-language-model"
PULLING_MODEL = dataclasses.replace(
    PULLING_RL2, memory="language-model", model=TINY_MODEL, hidden_size=32, window=16, learning_rate=3e-3
)


def _random(family: str, preset: str) -> TrainConfig:
    """Return a run of the random policy, which is only a record."""
    return TrainConfig("random", family, dataclasses.replace(ONCE, preset=preset))


# Trials of 10 pulls of 5 arms.
BANDIT = {
    "thompson": by_rule("thompson", "k5", PULLS),
    "ucb": by_rule("ucb", "k5", PULLS),
    "greedy": by_rule("greedy", "k5", PULLS),
    "rl2": Variant(TrainConfig("rl2", "bandit", BANDIT_RUN, PULLING_RL2), PULLS - 1, 3),
    "rl2-language-model": Variant(
        TrainConfig("rl2", "bandit", dataclasses.replace(BANDIT_RUN, tasks_per_batch=256), PULLING_MODEL), PULLS - 1, 3
    ),
    "dpt": Variant(
        TrainConfig("dpt", "bandit", BANDIT_RUN, DptConfig(**PULLING)),
        PULLS - 1,
        3,
        recording=Recording(_random("bandit", "k5"), tasks=10_000, episodes=40, best_actions=True),
    ),
    # 10,000 histories of UCB1.
    "algorithm-distillation": Variant(
        TrainConfig("algorithm-distillation", "bandit", BANDIT_RUN, AlgorithmDistillationConfig(**PULLING)),
        PULLS - 1,
        3,
        recording=Recording(by_rule("ucb", "k5", PULLS).config, tasks=1000, episodes=10, steps=PULLS - 1),
    ),
}


def gridnavi(preset: str) -> dict[str, Variant]:
    """Return the variants on GridNavi."""
    run = RunConfig(iterations=80, preset=preset, tasks_per_batch=16, episodes_per_task=8)
    dpt = DptConfig(episodes_per_trial=4, anneal_iterations=run.iterations, **SMALL)
    distillation = AlgorithmDistillationConfig(episodes_per_trial=7, anneal_iterations=run.iterations, **SMALL)
    # Histories of DQN from scratch: 7 rounds of 20 episodes, between which it learns from 300 env steps.
    dqn = dataclasses.replace(ONCE, preset=preset, episodes_per_task=20)
    histories = Recording(TrainConfig("dqn", "gridnavi", dqn, DqnConfig(variant="scratch")), 100, 20, steps=6)
    walks = Recording(_random("gridnavi", preset), tasks=100, episodes=400, best_actions=True)
    return {
        "dpt": Variant(TrainConfig("dpt", "gridnavi", run, dpt), 3, 2, recording=walks),
        "algorithm-distillation": Variant(
            TrainConfig("algorithm-distillation", "gridnavi", run, distillation), 6, 2, recording=histories
        ),
    }
