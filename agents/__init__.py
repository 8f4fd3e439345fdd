"""Meta-learners and baselines. Importing this package registers every learner in it.

A learner is one file: its config, its loss and its update, decorated with ``metarl.learning.learner.register_learner``.
"""

from metarl.registry import import_all

# Environments for Stable-Baselines3 derive from its classes, so they are imported only when a baseline makes them.
import_all(__name__, __path__, skip=("baselines.sb3.gradient_steps", "baselines.sb3.vec_env"))
