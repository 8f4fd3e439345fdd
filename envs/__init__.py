"""Task families. Importing this package registers every family in it, here and in Gymnasium.

A family is one file: a frozen dataclass decorated with ``metarl.families.family.register_family``.
"""

from metarl.registry import import_all

# Engines register nothing, and are imported only when a family makes its worlds.
import_all(__name__, __path__, skip=("manipulation", "simulation"))
