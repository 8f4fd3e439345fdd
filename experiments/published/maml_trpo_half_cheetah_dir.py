"""MAML-TRPO on HalfCheetahDir, forward and backward, with the settings of ProMP (Rothfuss et al. 2019).

    metarl train --published maml-trpo-half-cheetah-dir --seed 1

40 tasks, forward or backward, x 20 episodes x 100 steps, one inner step of size 0.1, TRPO with maximum KL 0.01 and 1001
iterations (160 million env steps). The policy is 64-64 tanh.
"""

from metarl.agents.gradient.maml_trpo import MamlTrpoConfig
from metarl.run.config import RunConfig, TrainConfig

EXPERIMENT = TrainConfig(
    "maml-trpo",
    "half-cheetah-dir",
    RunConfig(iterations=1001, preset="h100", tasks_per_batch=40, episodes_per_task=20),
    MamlTrpoConfig(inner_lr=0.1),
)
