"""Task families. Importing this package registers every family in it, here and in Gymnasium.

A family is one file: a frozen dataclass decorated with ``metarl.family.register_family``.
"""

from importlib import import_module
from pkgutil import iter_modules

# Engines that need an extra are imported when one of them is made.
EXTRAS = ("simulation_warp", "warp_kernels")

for _module in iter_modules(__path__):
    if _module.name not in EXTRAS:
        import_module(f"{__name__}.{_module.name}")
