"""Reptile on 2D navigation, with metarl's own settings: Nichol et al. 2018 has no reinforcement learning.

    metarl train --published reptile-navigation-2d --seed 1

Task batch, horizon and step size of the inner policy-gradient steps are those of MAML's experiment (Finn et al. 2017,
section 5.3); every task takes four inner steps on fresh rollouts.
"""

from metarl.agents.gradient.reptile import ReptileConfig
from metarl.run.config import RunConfig, TrainConfig

EXPERIMENT = TrainConfig(
    "reptile",
    "navigation-2d",
    RunConfig(iterations=60, preset="maml", tasks_per_batch=20, episodes_per_task=20),
    ReptileConfig(inner_optimizer="sgd", inner_lr=0.5, inner_epochs=1, inner_steps=4),
)
