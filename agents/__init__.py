"""Meta-learners and baselines. Importing this package registers every learner in it.

A learner is one file: its config, its loss and its update, decorated with ``metarl.learner.register_learner``.
"""

from metarl.registry import import_all

# What Stable-Baselines3 steps derives from its classes; it is imported when a baseline makes its environments.
import_all(__name__, __path__, skip=("baselines.sb3.gradient_steps", "baselines.sb3.vec_env"))
