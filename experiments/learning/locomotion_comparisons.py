"""Comparisons on robots."""

import dataclasses

from metarl.agents.baselines.sb3.algorithms import PpoConfig, SacConfig
from metarl.agents.gradient.maml_ppo import MamlPpoConfig
from metarl.agents.gradient.maml_trpo import MamlTrpoConfig
from metarl.agents.in_context.rl2 import Rl2Config
from metarl.experiments.learning import off_policy_comparisons
from metarl.experiments.learning.variant import Variant, from_scratch, in_context
from metarl.experiments.published import (
    rl2_half_cheetah_dir,
    rl2_half_cheetah_vel,
    varibad_half_cheetah_vel,
)
from metarl.learning.trust_region import TrustRegionConfig
from metarl.run.config import RunConfig, TrainConfig

CHEETAH = RunConfig(iterations=480, preset="0-2-h100", episodes_per_task=10)
CHEETAH_PPO = MamlPpoConfig(outer_lr=3e-3, anneal_iterations=CHEETAH.iterations, max_gradient_norm=1.0)
# 32 trials of 400 steps.
CHEETAH_TRIALS = RunConfig(iterations=320, preset="0-3-h200", tasks_per_batch=32, episodes_per_task=1)
CHEETAH_ALONE = RunConfig(preset="0-3-h200", episodes_per_task=10)


COMPARISONS: dict[str, dict[str, Variant]] = {
    "half-cheetah-vel": {
        "maml-trpo": Variant(
            TrainConfig(
                "maml-trpo",
                "half-cheetah-vel",
                dataclasses.replace(CHEETAH, iterations=800),
                MamlTrpoConfig(gae_lambda=0.95, trust_region=TrustRegionConfig(max_kl=0.1)),
            ),
            3,
            10,
        ),
        "maml-ppo": Variant(TrainConfig("maml-ppo", "half-cheetah-vel", CHEETAH, CHEETAH_PPO), 3, 6),
        # Steps of 10 episodes of 100 steps: 20,000 and 30,000 env steps on each task.
        "sac-scratch": from_scratch("sac", "half-cheetah-vel", CHEETAH, SacConfig(variant="scratch"), steps=20),
        "ppo-scratch": from_scratch("ppo", "half-cheetah-vel", CHEETAH, PpoConfig(variant="scratch"), steps=30),
    },
    "half-cheetah-vel-0-3": {
        "rl2": in_context(
            "rl2",
            CHEETAH_TRIALS,
            Rl2Config(
                episodes_per_trial=2,
                learning_rate=3e-3,
                anneal_iterations=320,
                entropy_weight=0.003,
                normalize_observations=True,
            ),
            "half-cheetah-vel",
        ),
        "rl2-published": Variant(rl2_half_cheetah_vel.EXPERIMENT, steps=1, evaluations=10),
        "varibad": Variant(varibad_half_cheetah_vel.EXPERIMENT, steps=1, evaluations=10),
        **off_policy_comparisons.CHEETAH,
        # Steps of 10 episodes of 200 steps: 50,000 and 100,000 env steps on each task.
        "sac-scratch": from_scratch("sac", "half-cheetah-vel", CHEETAH_ALONE, SacConfig(variant="scratch"), steps=25),
        "ppo-scratch": from_scratch("ppo", "half-cheetah-vel", CHEETAH_ALONE, PpoConfig(variant="scratch"), steps=50),
    },
    "half-cheetah-dir": {
        "rl2": Variant(rl2_half_cheetah_dir.EXPERIMENT, steps=1, evaluations=10),
    },
}
