"""MAML-TRPO on 2D navigation, with the settings of Finn et al. 2017, section 5.3 and appendix A.2.

    metarl train --published maml-trpo-navigation-2d --seed 1

20 tasks x 20 episodes x 100 steps, one inner step of size 0.5, TRPO with maximum KL 0.01 and 100 iterations are the
paper's. The policy is 64-64 tanh, as in later work; the paper's was 100-100 ReLU.
"""

from metarl.agents.gradient.maml_trpo import MamlTrpoConfig
from metarl.run.config import RunConfig, TrainConfig

EXPERIMENT = TrainConfig(
    "maml-trpo",
    "navigation-2d",
    RunConfig(iterations=100, preset="maml", tasks_per_batch=20, episodes_per_task=20),
    MamlTrpoConfig(inner_lr=0.5),
)
