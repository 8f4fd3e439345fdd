"""MAML-PPO on HalfCheetahDir, with the settings of ProMP (Rothfuss et al. 2019) and its authors' script.

    metarl train --published maml-ppo-half-cheetah-dir --seed 1

40 tasks, forward or backward, x 20 episodes x 100 steps, one inner step of size 0.1, 5 steps of Adam with step size
1e-3, clip range 0.3, weight 5e-4 of the inner KL and 1001 iterations (160 million env steps). The policy is 64-64 tanh.
"""

from metarl.agents.gradient.maml_ppo import MamlPpoConfig
from metarl.run.config import RunConfig, TrainConfig

EXPERIMENT = TrainConfig(
    "maml-ppo",
    "half-cheetah-dir",
    RunConfig(iterations=1001, preset="h100", tasks_per_batch=40, episodes_per_task=20),
    MamlPpoConfig(inner_lr=0.1, outer_lr=1e-3, epochs=5, clip_range=0.3, inner_kl=5e-4),
)
