"""Recurrent SAC on HalfCheetahVel (Ni, Eysenbach and Salakhutdinov 2022).

    metarl train --published recurrent-sac-half-cheetah-vel --seed 1

v* in [0, 3] m/s, and trials of two episodes of 200 steps; 782 iterations are the paper's 5 million env steps. The
authors' script updates on 32 trials for every 50 env steps; here it is 16 trials for every 200. Step size, tau and
discount are those of a pilot; docs/recurrent-sac.md has the authors'.
"""

from metarl.agents.in_context.recurrent_sac import RecurrentSacConfig
from metarl.run.config import RunConfig, TrainConfig

EXPERIMENT = TrainConfig(
    "recurrent-sac",
    "half-cheetah-vel",
    RunConfig(iterations=782, preset="0-3-h200", tasks_per_batch=16, episodes_per_task=1),
    RecurrentSacConfig(
        episodes_per_trial=2,
        discount=0.97,
        learning_rate=1e-3,
        tau=0.02,
        updates_per_iteration=32,
        trials_per_update=16,
    ),
)
