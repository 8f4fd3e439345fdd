"""MAML-TRPO on AntVel, with the settings of Finn et al. 2017, section 5.3 and appendix A.2.

    metarl train --published maml-trpo-ant-vel --seed 1

40 tasks with v* in [0, 3] m/s x 20 episodes x 200 steps, one inner step of size 0.1, TRPO with maximum KL 0.01 and 500
iterations are the paper's (up to 160 million env steps). The policy is 64-64 tanh, as in later work; the paper's
was 100-100 ReLU.
"""

from metarl.agents.gradient.maml_trpo import MamlTrpoConfig
from metarl.run.config import RunConfig, TrainConfig

EXPERIMENT = TrainConfig(
    "maml-trpo",
    "ant-vel",
    RunConfig(iterations=500, preset="0-3-h200", tasks_per_batch=40, episodes_per_task=20),
    MamlTrpoConfig(inner_lr=0.1),
)
