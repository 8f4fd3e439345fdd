"""RL² on Walker2DRandParams, with the protocol of VariBAD (Zintgraf et al. 2020).

    metarl train --published rl2-walker2d-rand-params --seed 1

Trials of two episodes of at most 200 steps. The authors' curves end at 1e8 env steps; 2344 iterations are at most 3e7,
and fewer as long as the walker falls. The other settings are those of RL² on HalfCheetahVel.
"""

from metarl.agents.in_context.rl2 import Rl2Config
from metarl.run.config import RunConfig, TrainConfig

EXPERIMENT = TrainConfig(
    "rl2",
    "walker2d-rand-params",
    RunConfig(iterations=2344, preset="h200", tasks_per_batch=32, episodes_per_task=1),
    Rl2Config(
        episodes_per_trial=2,
        policy_sizes=(64, 64),
        learning_rate=1e-3,
        anneal_iterations=2344,
        entropy_weight=0.003,
        normalize_observations=True,
    ),
)
