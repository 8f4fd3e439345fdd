"""Meta-learners and baselines. Importing this package registers every learner in it.

A learner is one file: its config, its loss and its update, decorated with ``metarl.learner.register_learner``.
"""

from importlib import import_module
from pkgutil import iter_modules

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
