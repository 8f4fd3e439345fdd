"""VariBAD on HalfCheetahVel (Zintgraf et al. 2020, section 5.2).

    metarl train --published varibad-half-cheetah-vel --seed 1

v* in [0, 3] m/s, and trials of two episodes of 200 steps. The authors' curves end at 1e8 env steps; 2344 iterations are
3e7. The settings that VariBAD shares with RL² are as in ``rl2-half-cheetah-vel``; the others are the defaults.
"""

from metarl.agents.in_context.varibad_config import VariBadConfig
from metarl.run.config import RunConfig, TrainConfig

EXPERIMENT = TrainConfig(
    "varibad",
    "half-cheetah-vel",
    RunConfig(iterations=2344, preset="0-3-h200", tasks_per_batch=32, episodes_per_task=1),
    VariBadConfig(
        episodes_per_trial=2,
        hidden_sizes=(64, 64),
        discount=0.99,
        learning_rate=1e-3,
        anneal_iterations=2344,
        entropy_weight=0.003,
        normalize_observations=True,
    ),
)
