"""PEARL on the sparse point, after Rakelly et al. 2019, section 6.2, at a size for a CPU.

    metarl train --published pearl-sparse-point --seed 1

5 latent variables, discount 0.9 and reward scale 100 are those of the paper and the authors' script. Their critics
learn from dense rewards; here there are none, so the first iterations act at random, in order to meet some goals.
Networks (theirs: 3 x 300 units), steps of 32 tasks x 32 transitions (16 x 256), step size (3e-4), KL weight (1, summed
over the tasks) and 5 episodes a trial are metarl's own, for half a million env steps on a CPU.
"""

from metarl.agents.in_context.pearl_config import PearlConfig
from metarl.run.config import RunConfig, TrainConfig

EXPERIMENT = TrainConfig(
    "pearl",
    "sparse-point",
    RunConfig(iterations=120, preset="pearl", tasks_per_batch=20, episodes_per_task=2),
    PearlConfig(
        episodes_per_trial=5,
        kl_weight=0.3,
        hidden_sizes=(128, 128),
        learning_rate=1e-3,
        discount=0.9,
        reward_scale=100.0,
        updates_per_iteration=100,
        tasks_per_update=32,
        batch_size=32,
        random_iterations=10,
    ),
)
