"""Comparisons on Meta-World, about success."""

import dataclasses
from importlib.util import find_spec

from metarl.agents.gradient.maml_trpo import MamlTrpoConfig
from metarl.agents.in_context.rl2 import Rl2Config
from metarl.experiments.learning.variant import Variant
from metarl.experiments.tools.metaworld_evaluation import success_rates
from metarl.rollouts.returns import DEVIATION_FLOOR
from metarl.run.config import RunConfig, TrainConfig

# As in Meta-World+ (NeurIPS 2025), without a floor: in some environments rewards are small until they are learned. ML1
# is one environment, and has a smaller network.
ML10_MAML = MamlTrpoConfig(hidden_sizes=(512, 512), inner_lr=0.1, discount=0.99, gae_lambda=1.0, deviation_floor=0.0)
ML1_MAML = dataclasses.replace(ML10_MAML, hidden_sizes=(100, 100), deviation_floor=DEVIATION_FLOOR)


def _variants(family: str, preset: str, maml: MamlTrpoConfig, iterations: int) -> dict[str, Variant]:
    """Return MAML-TRPO and RL² on a benchmark of Meta-World: 10 episodes of 500 steps to adapt, on 20 tasks."""
    gradients = RunConfig(iterations, preset=preset, tasks_per_batch=20, episodes_per_task=10)
    # 40 trials of 5,000 steps are as many env steps as 200 episodes before and after a gradient step.
    trials = dataclasses.replace(gradients, episodes_per_task=2)
    rl2 = Rl2Config(
        hidden_size=256,
        bptt_steps=500,  # one episode, as in Meta-World+
        episodes_per_trial=10,
        learning_rate=5e-4,
        minibatches=16,
        entropy_weight=0.003,
        anneal_iterations=iterations,
        normalize_observations=True,
    )
    return {
        "maml-trpo": Variant(TrainConfig("maml-trpo", family, gradients, maml), 1, 5, success_rates),
        "rl2": Variant(TrainConfig("rl2", family, trials, rl2), 9, 5, success_rates),
    }


def _comparisons() -> dict[str, dict[str, Variant]]:
    """Return what can be run here: a configuration checks that its family's package is installed.

    An iteration has 200,000 env steps; training takes 10 million for reach, 20 million for push and ML10.
    """
    if find_spec("metaworld") is None:
        return {}
    return {
        "metaworld-ml1-reach": _variants("metaworld-ml1", "reach", ML1_MAML, iterations=50),
        "metaworld-ml1-push": _variants("metaworld-ml1", "push", ML1_MAML, iterations=100),
        "metaworld-ml10": _variants("metaworld-ml10", "batched", ML10_MAML, iterations=100),
    }


COMPARISONS = _comparisons()
