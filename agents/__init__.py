"""Meta-learners and baselines. Importing this package registers every learner in it.

A learner is one file: its config, its loss and its update, decorated with ``metarl.learner.register_learner``.
"""

from metarl.registry import import_all

import_all(__name__, __path__)
