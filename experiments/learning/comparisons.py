"""The comparisons: sets of learners with their settings, evaluated on the same held-out tasks.

``learning/curve.py`` measures a comparison; a new one, or another variant of one, is an entry of ``COMPARISONS``.
"""

import dataclasses
from typing import Any

from metarl.agents.baselines.sb3.algorithms import DqnConfig
from metarl.agents.gradient.maml_ppo import MamlPpoConfig
from metarl.agents.gradient.maml_trpo import MamlTrpoConfig
from metarl.agents.gradient.reptile import ReptileConfig
from metarl.agents.in_context.focal import FocalConfig
from metarl.agents.in_context.hyper_rl2 import HyperRl2Config
from metarl.agents.in_context.pearl_config import PearlConfig
from metarl.agents.in_context.rl2 import Rl2Config
from metarl.agents.in_context.varibad_config import VariBadConfig
from metarl.experiments.learning import (
    bandit_comparisons,
    locomotion_comparisons,
    metaworld_comparisons,
    off_policy_comparisons,
    recorded_comparisons,
)
from metarl.experiments.learning.variant import Recording, Variant, from_scratch, in_context
from metarl.experiments.published import (
    dqn_gridnavi,
    maml_trpo_navigation_2d,
    pearl_sparse_point,
    reptile_navigation_2d,
    varibad_gridnavi,
)
from metarl.families.references import Reference
from metarl.run.config import RunConfig, TrainConfig


def _changed(config: TrainConfig, **settings: object) -> TrainConfig:
    return dataclasses.replace(config, settings=dataclasses.replace(config.settings, **settings))


def _with_iterations(config: TrainConfig, iterations: int) -> TrainConfig:
    return dataclasses.replace(config, run=dataclasses.replace(config.run, iterations=iterations))


def _also_on_training_tasks(variants: dict[str, Variant]) -> dict[str, Variant]:
    """Return the variants, evaluated on training tasks as well."""
    return {label: dataclasses.replace(variant, on_training_tasks=True) for label, variant in variants.items()}


def _by_gradient(run: RunConfig) -> dict[str, Variant]:
    """Return the learners that adapt by gradient steps, on GridNavi."""
    learners = {
        "maml-trpo": MamlTrpoConfig(inner_lr=1.0),
        "maml-ppo": MamlPpoConfig(inner_lr=1.0),
        "reptile": ReptileConfig(inner_steps=3),
    }
    return {name: Variant(TrainConfig(name, "gridnavi", run, each), 4, 10) for name, each in learners.items()}


MAML_NAVIGATION, REPTILE_NAVIGATION = maml_trpo_navigation_2d.EXPERIMENT, reptile_navigation_2d.EXPERIMENT
GRIDNAVI, DQN_GRIDNAVI = RunConfig(iterations=100, preset="varibad"), _with_iterations(dqn_gridnavi.EXPERIMENT, 10)
# 256 trials of 60 steps per iteration.
GRIDNAVI_TRIALS = RunConfig(iterations=200, preset="varibad", tasks_per_batch=16, episodes_per_task=16)
GRIDNAVI_100 = dataclasses.replace(GRIDNAVI_TRIALS, iterations=100)
GRIDNAVI_SHARED = dataclasses.replace(GRIDNAVI_TRIALS, preset="varibad-shared")
GRIDNAVI_SHARED_100 = dataclasses.replace(GRIDNAVI_SHARED, iterations=100)
FOUR_EPISODES: dict[str, Any] = {"episodes_per_trial": 4, "discount": 0.95}
TRANSFORMER = Rl2Config(memory="transformer", window=64, **FOUR_EPISODES)
EXTERNAL = Rl2Config(memory="external", **FOUR_EPISODES)
VARIBAD, PEARL_SPARSE = _with_iterations(varibad_gridnavi.EXPERIMENT, 400), pearl_sparse_point.EXPERIMENT
PEARL_NAVIGATION = dataclasses.replace(
    pearl_sparse_point.EXPERIMENT.settings, episodes_per_trial=3, discount=0.95, reward_scale=20.0, random_iterations=5
)
# 80 trials of 300 steps: a metric compares the two trials of each task, and the many tasks of an iteration.
NAVIGATION_PAIRS = RunConfig(iterations=100, preset="maml", tasks_per_batch=40, episodes_per_task=2)
PEARL_METRIC = PearlConfig(
    task_encoder="contrastive",
    episodes_per_trial=3,
    context_size=32,
    learning_rate=1e-3,
    discount=0.95,
    reward_scale=20.0,
    tau=0.02,
    updates_per_iteration=200,
    tasks_per_update=32,
    batch_size=16,
)
PEARL_PROTOTYPICAL = dataclasses.replace(PEARL_METRIC, task_encoder="prototypical", anneal_iterations=200)
# PEARL on 1,200 short episodes, its own or the random policy's.
SHORT_NAVIGATION = RunConfig(iterations=20, horizon=20, tasks_per_batch=20, episodes_per_task=1)
PEARL_SHORT = TrainConfig(
    "pearl",
    "navigation-2d",
    SHORT_NAVIGATION,
    PearlConfig(learning_rate=1e-3, discount=0.9, reward_scale=20.0, episodes_per_trial=3),
)
FOCAL_SHORT = TrainConfig(
    "focal",
    "navigation-2d",
    dataclasses.replace(SHORT_NAVIGATION, episodes_per_task=2),
    FocalConfig(learning_rate=1e-3, discount=0.9, reward_scale=20.0, episodes_per_trial=3, behaviour_weight=0.1),
)
RANDOM_SHORT = TrainConfig("random", "navigation-2d", dataclasses.replace(SHORT_NAVIGATION, iterations=1))
RANDOM_EPISODES = Recording(RANDOM_SHORT, tasks=100, episodes=12)
# 128 trials of 300 steps; 256 of 100; 512 of 100.
NAVIGATION_TRIALS = RunConfig(iterations=100, preset="maml", tasks_per_batch=32, episodes_per_task=4)
SPARSE_TRIALS = RunConfig(iterations=200, preset="pearl", tasks_per_batch=64, episodes_per_task=4)
TABULAR_TRIALS = RunConfig(iterations=300, preset="rl2", tasks_per_batch=512, episodes_per_task=1)
# 128 trials of 120 steps.
MAZE_TRIALS = RunConfig(iterations=200, preset="9x9", tasks_per_batch=64, episodes_per_task=2)
MAZE_RL2 = Rl2Config(discount=0.95, learning_rate=2e-3, anneal_iterations=200, epochs=3, minibatches=8)
# Many large Adam steps, for many short trials.
MANY_TRIALS: dict[str, Any] = {"learning_rate": 2e-3, "epochs": 3, "minibatches": 12, "entropy_weight": 0.003}

TABULAR: dict[str, Any] = {
    "episodes_per_trial": 10,
    "gae_lambda": 0.8,
    "anneal_iterations": TABULAR_TRIALS.iterations,
    "epochs": 1,
    "minibatches": 16,
}
# 250 million env steps.
TABULAR_PUBLISHED = RunConfig(iterations=4883, preset="rl2", tasks_per_batch=512, episodes_per_task=1)
TABULAR_128 = Rl2Config(
    hidden_size=128,
    policy_sizes=(64,),
    previous_step="yes",
    orthogonal=True,
    learning_rate=1.2e-2,
    entropy_weight=0.04,
    max_gradient_norm=1.0,
    **{**TABULAR, "gae_lambda": 0.3, "anneal_iterations": TABULAR_PUBLISHED.iterations},
)
TABULAR_TRANSFORMER = Rl2Config(memory="transformer", layers=1, heads=2, window=100, learning_rate=2e-3, **TABULAR)

COMPARISONS: dict[str, dict[str, Variant]] = {
    **bandit_comparisons.COMPARISONS,
    "bandit-short": {**recorded_comparisons.BANDIT, **off_policy_comparisons.BANDIT},
    "tabular-mdp": {
        "rl2": in_context("rl2", TABULAR_TRIALS, Rl2Config(learning_rate=8e-3, **TABULAR), "tabular-mdp"),
        "rl2-transformer": in_context("rl2", TABULAR_TRIALS, TABULAR_TRANSFORMER, "tabular-mdp"),
        "rl2-published": in_context("rl2", TABULAR_PUBLISHED, TABULAR_128, "tabular-mdp"),
    },
    # Uniform tasks against prioritised level replay, all else equal.
    "random-mazes": {
        "rl2": in_context("rl2", MAZE_TRIALS, MAZE_RL2, "random-mazes"),
        "rl2-plr": in_context("rl2", dataclasses.replace(MAZE_TRIALS, task_source="plr"), MAZE_RL2, "random-mazes"),
    },
    "sparse-point": {
        "rl2": in_context(
            "rl2",
            SPARSE_TRIALS,
            Rl2Config(episodes_per_trial=5, discount=0.95, anneal_iterations=200, **MANY_TRIALS),
            "sparse-point",
        ),
        "varibad": in_context(
            "varibad",
            SPARSE_TRIALS,
            VariBadConfig(
                episodes_per_trial=5,
                hidden_sizes=(64, 64),
                reward_inputs="next-observation",
                model_updates=20,
                anneal_iterations=200,
                **MANY_TRIALS | {"entropy_weight": 0.02},
            ),
            "sparse-point",
        ),
        "pearl": in_context("pearl", _with_iterations(PEARL_SPARSE, 60).run, PEARL_SPARSE.settings, "sparse-point"),
    },
    "navigation-2d": {
        "maml-trpo": Variant(MAML_NAVIGATION, steps=3, evaluations=10),
        "maml-trpo-500": Variant(_changed(_with_iterations(MAML_NAVIGATION, 500), later_lr_factor=0.25), 3, 10),
        "maml-trpo-full-curvature": Variant(_changed(MAML_NAVIGATION, curvature_fraction=1.0), 3, 10),
        "maml-ppo": Variant(
            TrainConfig("maml-ppo", "navigation-2d", RunConfig(40, preset="maml"), MamlPpoConfig(inner_lr=0.5)), 3, 10
        ),
        "reptile": Variant(REPTILE_NAVIGATION, steps=4, evaluations=10),
        "rl2": in_context(
            "rl2",
            NAVIGATION_TRIALS,
            Rl2Config(episodes_per_trial=3, anneal_iterations=100, **MANY_TRIALS),
            "navigation-2d",
        ),
        "varibad": in_context(
            "varibad",
            dataclasses.replace(NAVIGATION_TRIALS, iterations=30),
            VariBadConfig(episodes_per_trial=3, hidden_sizes=(64, 64), kl_weight=0.1, model_updates=40, **MANY_TRIALS),
            "navigation-2d",
        ),
        # The first evaluation is after the iterations with random actions.
        "pearl": Variant(
            TrainConfig(
                "pearl",
                "navigation-2d",
                RunConfig(iterations=40, preset="maml", tasks_per_batch=20, episodes_per_task=1),
                PEARL_NAVIGATION,
            ),
            steps=2,
            evaluations=5,
        ),
        "pearl-contrastive": Variant(TrainConfig("pearl", "navigation-2d", NAVIGATION_PAIRS, PEARL_METRIC), 2, 10),
        "pearl-prototypical": Variant(
            TrainConfig(
                "pearl", "navigation-2d", dataclasses.replace(NAVIGATION_PAIRS, iterations=200), PEARL_PROTOTYPICAL
            ),
            2,
            10,
        ),
    },
    # Trained on its own episodes, and on recorded ones without an environment step.
    # 40 episodes for each step, as in the authors' test; steps after the first have 0.35 of its size.
    "navigation-2d-published": {
        "maml-trpo": Variant(
            _changed(_with_iterations(MAML_NAVIGATION, 500), later_lr_factor=0.35), 3, 10, episodes=40
        ),
    },
    "navigation-2d-recorded": {
        "pearl": Variant(PEARL_SHORT, 2, 5),
        "pearl-recorded": Variant(PEARL_SHORT, 2, 5, recording=RANDOM_EPISODES),
        "focal": Variant(FOCAL_SHORT, 2, 5, recording=RANDOM_EPISODES),
    },
    "gridnavi": _also_on_training_tasks(
        {
            **_by_gradient(GRIDNAVI),
            # 6 steps of 20 episodes of 15 steps are 1,800 env steps on each task.
            "dqn-scratch": from_scratch("dqn", "gridnavi", GRIDNAVI, DqnConfig(variant="scratch"), steps=6),
            "dqn-pretrained": Variant(DQN_GRIDNAVI, steps=6, evaluations=1),
            "dqn-oracle": Variant(_changed(DQN_GRIDNAVI, variant="oracle"), steps=6, evaluations=1),
            # The steps are the later episodes of a trial of four episodes.
            "rl2": in_context("rl2", GRIDNAVI_TRIALS, Rl2Config(**FOUR_EPISODES)),
            "rl2-transformer": in_context("rl2", GRIDNAVI_100, TRANSFORMER),
            "rl2-external": in_context("rl2", GRIDNAVI_100, EXTERNAL),
            "hyper-rl2": in_context("hyper-rl2", GRIDNAVI_TRIALS, HyperRl2Config(**FOUR_EPISODES)),
            "varibad": in_context("varibad", dataclasses.replace(VARIBAD.run, preset="varibad"), VARIBAD.settings),
            **off_policy_comparisons.GRIDNAVI,
        }
    ),
    "gridnavi-recorded": _also_on_training_tasks(recorded_comparisons.gridnavi("varibad")),
    # The published protocol: evaluation on the training goals.
    "gridnavi-shared": {
        **_by_gradient(dataclasses.replace(GRIDNAVI, preset="varibad-shared", iterations=200)),
        "rl2": in_context("rl2", GRIDNAVI_SHARED, Rl2Config(**FOUR_EPISODES)),
        # Gradients flow back through one of the four episodes.
        "rl2-truncated": in_context("rl2", GRIDNAVI_SHARED, Rl2Config(bptt_steps=15, **FOUR_EPISODES)),
        "rl2-transformer": in_context("rl2", GRIDNAVI_SHARED_100, TRANSFORMER),
        "rl2-external": in_context("rl2", GRIDNAVI_SHARED_100, EXTERNAL),
        "hyper-rl2": in_context("hyper-rl2", GRIDNAVI_SHARED, HyperRl2Config(**FOUR_EPISODES)),
        "varibad": in_context("varibad", VARIBAD.run, VARIBAD.settings),
        **recorded_comparisons.gridnavi("varibad-shared"),
    },
    # The tasks of gridnavi, observed as small images; in gridnavi rl2 observes two numbers.
    "gridnavi-image": {
        "rl2-spatial-softmax": in_context(
            "rl2", GRIDNAVI_100, Rl2Config(encoder="spatial-softmax", **FOUR_EPISODES), "gridnavi-image"
        ),
        "rl2-conv": in_context("rl2", GRIDNAVI_100, Rl2Config(encoder="conv", **FOUR_EPISODES), "gridnavi-image"),
    },
    **locomotion_comparisons.COMPARISONS,
    **metaworld_comparisons.COMPARISONS,
}


def find_comparison_reference(name: str) -> Reference | None:
    """Return the reference returns of a comparison, or None if the comparison or its returns are unknown."""
    variants = COMPARISONS.get(name)
    return next(iter(variants.values())).config.find_reference() if variants else None
