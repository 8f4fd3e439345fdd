"""AMAGO on HalfCheetahVel (Grigsby, Fan and Zhu 2024).

    metarl train --published amago-half-cheetah-vel --seed 1

v* in [0, 3] m/s, and trials of two episodes of 200 steps; 782 iterations are 5 million env steps. A GRU replaces the
authors' transformer, an entropy bonus replaces their imitation, policies do not train the memory, and the step size is
annealed to 0. The settings are those of pilots; docs/amago.md has the authors'.
"""

from metarl.agents.in_context.amago import AmagoConfig
from metarl.run.config import RunConfig, TrainConfig

EXPERIMENT = TrainConfig(
    "amago",
    "half-cheetah-vel",
    RunConfig(iterations=782, preset="0-3-h200", tasks_per_batch=16, episodes_per_task=1),
    AmagoConfig(
        memory="gru",
        episodes_per_trial=2,
        discounts=(0.97,),
        critics=2,
        imitation_weight=0.0,
        entropy_weight=0.0005,
        memory_losses="critics",
        exploration=1.0,
        exploration_iterations=120,
        learning_rate=1e-3,
        anneal_iterations=782,
        tau=0.02,
        updates_per_iteration=128,
        trials_per_update=8,
    ),
)
