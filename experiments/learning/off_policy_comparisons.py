"""Learners that train on replayed trials, in comparisons with others."""

import dataclasses
from typing import Any

from metarl.agents.in_context.amago import AmagoConfig
from metarl.agents.in_context.recurrent_sac import RecurrentSacConfig
from metarl.experiments.learning.variant import Variant
from metarl.experiments.published import amago_half_cheetah_vel, recurrent_sac_half_cheetah_vel
from metarl.run.config import RunConfig, TrainConfig

# 32 trials of 60 steps, and 40 updates: one per 48 env steps, about as often as in Ni et al. 2022.
GRIDNAVI_RUN = RunConfig(iterations=100, preset="varibad", tasks_per_batch=8, episodes_per_task=4)
FOUR_EPISODES: dict[str, Any] = {"episodes_per_trial": 4, "updates_per_iteration": 40}
# 32 trials of ten pulls.
PULLS = 10
BANDIT_RUN = RunConfig(iterations=150, preset="k5", tasks_per_batch=32, episodes_per_task=1)


GRIDNAVI = {
    "recurrent-sac": Variant(
        TrainConfig("recurrent-sac", "gridnavi", GRIDNAVI_RUN, RecurrentSacConfig(discount=0.95, **FOUR_EPISODES)),
        3,
        10,
    ),
    "amago": Variant(
        TrainConfig(
            "amago",
            "gridnavi",
            dataclasses.replace(GRIDNAVI_RUN, iterations=60),
            AmagoConfig(window=64, **FOUR_EPISODES),
        ),
        3,
        6,
    ),
}
BANDIT = {
    "amago": Variant(
        TrainConfig(
            "amago",
            "bandit",
            BANDIT_RUN,
            AmagoConfig(
                episodes_per_trial=PULLS,
                updates_per_iteration=10,
                discounts=(0.1, 0.5, 0.8, 0.9, 0.95),
                hidden_size=32,
                layers=1,
                heads=2,
            ),
        ),
        PULLS - 1,
        3,
    ),
}
CHEETAH = {
    "recurrent-sac": Variant(recurrent_sac_half_cheetah_vel.EXPERIMENT, 1, 10),
    "amago": Variant(amago_half_cheetah_vel.EXPERIMENT, 1, 10),
}
