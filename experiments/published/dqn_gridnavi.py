"""DQN of Stable-Baselines3 on GridNavi, trained on the training goals, then on each held-out one: our own settings.

    metarl train --published dqn-gridnavi --seed 1
    metarl train --published dqn-gridnavi --variant oracle --out runs/dqn-oracle

20 training goals, drawn with replacement, x 20 episodes x 15 steps per iteration. With ``--variant oracle`` it observes
the goal; with ``--variant scratch`` it is not trained on the training goals.
"""

from metarl.agents.baselines.sb3.algorithms import DqnConfig
from metarl.run.config import RunConfig, TrainConfig

EXPERIMENT = TrainConfig(
    "dqn",
    "gridnavi",
    RunConfig(iterations=50, preset="varibad", tasks_per_batch=20, episodes_per_task=20),
    DqnConfig(variant="pretrained"),
)
