"""PEARL on HalfCheetahVel, with the settings of Rakelly et al. 2019, section 6.1, and the authors' script.

    metarl train --published pearl-half-cheetah-vel --seed 1

v* in [0, 3] m/s, horizon 200, 5 tasks per iteration, 2000 steps of soft actor-critic on 16 tasks x 256 transitions,
networks of 3 x 300 units, step size 3e-4, 5 latent variables, KL weight 1.6 (0.1, summed over 16 tasks), reward scale 5
and 2.7 million env steps are the paper's. Each task gets 2 trials of 2 episodes: 400 steps from the prior, as in
the paper, and 400 from the belief, where the paper takes 600. 100 tasks are replayed, as many as the paper trains on.
"""

from metarl.agents.in_context.pearl_config import PearlConfig
from metarl.run.config import RunConfig, TrainConfig

EXPERIMENT = TrainConfig(
    "pearl",
    "half-cheetah-vel",
    RunConfig(iterations=675, preset="0-3-h200", tasks_per_batch=5, episodes_per_task=2),
    PearlConfig(
        kl_weight=1.6,
        hidden_sizes=(300, 300, 300),
        batch_size=256,
        updates_per_iteration=2000,
        replay_size=80_000,
    ),
)
