"""VariBAD on GridNavi, four episodes of 15 steps a trial (Zintgraf et al. 2020, section 5.1).

    metarl train --published varibad-gridnavi --seed 1
    metarl train --published varibad-gridnavi --preset varibad --out runs/varibad-held-out

The task, the trial, the sizes of encoder, latent, decoder and policy, the discount and the decoder's inputs are the
paper's; all goals occur in training, as in the paper. It trains for 2e7 env steps on 16 trials at a time; here it is
256, and 550 iterations are 8.4e6 env steps. The rest is our own. With ``--preset varibad`` test goals are held out.
"""

from metarl.agents.in_context.varibad_config import VariBadConfig
from metarl.run.config import RunConfig, TrainConfig

EXPERIMENT = TrainConfig(
    "varibad",
    "gridnavi",
    RunConfig(iterations=550, preset="varibad-shared", tasks_per_batch=64, episodes_per_task=4, checkpoint_every=50),
    VariBadConfig(
        episodes_per_trial=4,
        discount=0.95,
        encoder_size=64,
        latent_size=5,
        decoder_sizes=(32, 32),
        hidden_sizes=(32, 32),
        reward_inputs="next-observation",
        epochs=2,
        model_updates=4,
        model_trials=64,
        model_learning_rate=0.002,
    ),
)
