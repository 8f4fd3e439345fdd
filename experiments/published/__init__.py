"""Published experiments: a file for each, with its settings and their source, and functions that find them by name.

The name of an experiment is its file's in kebab case: ``metarl train --published varibad-gridnavi``.
"""

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

from metarl.registry import find_by_name
from metarl.run.config import TrainConfig

MODULES = {module.name.replace("_", "-"): f"{__name__}.{module.name}" for module in iter_modules(__path__)}
# Env steps and CPU minutes of one seed of each, from benchmarks/published_costs.py.
COSTS = Path(__file__).with_name("costs.json")


@dataclass(frozen=True)
class Published:
    """An experiment under its name, with its file's documentation: what it replicates, and the published results."""

    name: str
    config: TrainConfig
    description: str

    @property
    def summary(self) -> str:
        """The first line of its documentation."""
        return self.description.splitlines()[0]


def find_published(name: str) -> Published:
    """Return the experiment of that name.

    Raises:
        InputError: naming the nearest known names, and the command that lists all of them.
    """
    module = import_module(find_by_name(MODULES, name, "published experiment", "metarl train --published"))
    return Published(name, module.EXPERIMENT, (module.__doc__ or "").strip())


def list_published() -> list[Published]:
    """Return all of them, in the order of their names."""
    return [find_published(name) for name in sorted(MODULES)]
