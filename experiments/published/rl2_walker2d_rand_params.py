"""RL² on Walker2DRandParams, with the protocol of VariBAD (Zintgraf et al. 2020, appendix).

    metarl train --published rl2-walker2d-rand-params --seed 1

Trials of two episodes of 200 steps, discount 0.97, lambda 0.9, a memory of 128 units and 1e8 env steps. The paper
trains on 16 trials at a time; here it is 64. The rest is our own.
"""

from metarl.agents.in_context.rl2 import Rl2Config
from metarl.run.config import RunConfig, TrainConfig

EXPERIMENT = TrainConfig(
    "rl2",
    "walker2d-rand-params",
    RunConfig(iterations=3906, preset="h200", tasks_per_batch=64, episodes_per_task=1),
    Rl2Config(
        episodes_per_trial=2,
        hidden_size=128,
        discount=0.97,
        gae_lambda=0.9,
        normalize_observations=True,
    ),
)
