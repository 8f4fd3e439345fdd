"""Meta-reinforcement learning: policies that adapt to a new task within a few episodes.

This is the front door: importing it registers the environments of all families with Gymnasium, and what a script needs
is imported at its first use, because torch alone takes seconds. It is above the floors of ARCHITECTURE.md; modules
import each other directly, never from here.
"""

import os
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

# OpenMP reads it when torch is loaded, so it must be set before. By default idle workers spin for a long time, and
# another process on one of their cores (a second run, a browser) slows an update down a lot: see docs/performance.md.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")

from metarl.listing import register_ids

if TYPE_CHECKING:
    from metarl.agents.baselines.sb3.vec_env import Sb3VecEnv
    from metarl.checks.families import check_family
    from metarl.checks.learners import check_learner
    from metarl.errors import InputError, MetarlError, RunError
    from metarl.evaluation.evaluate import adaptation_curve, evaluate, load_run, load_session
    from metarl.evaluation.export import export_policy
    from metarl.families.family import make_family
    from metarl.families.splits import TaskSplit
    from metarl.run.adaptation_curve import AdaptationCurve
    from metarl.run.config import RunConfig, TrainConfig
    from metarl.run.settings_file import config_from_file
    from metarl.sampling.sampler import Sampler
    from metarl.sampling.session import Session
    from metarl.training.callbacks import Callback, EarlyStopping, KeepBest, TimeLimit
    from metarl.training.train import resume, train
    from metarl.worlds.text_wrapper import TextWrapper
    from metarl.worlds.trial_env import TrialEnv, TrialVectorEnv

    __version__: str

# The modules of the public names.
_HOMES = {
    "AdaptationCurve": "run.adaptation_curve",
    "Callback": "training.callbacks",
    "EarlyStopping": "training.callbacks",
    "InputError": "errors",
    "KeepBest": "training.callbacks",
    "MetarlError": "errors",
    "RunConfig": "run.config",
    "RunError": "errors",
    "Sampler": "sampling.sampler",
    "Sb3VecEnv": "agents.baselines.sb3.vec_env",
    "Session": "sampling.session",
    "TaskSplit": "families.splits",
    "TextWrapper": "worlds.text_wrapper",
    "TimeLimit": "training.callbacks",
    "TrainConfig": "run.config",
    "TrialEnv": "worlds.trial_env",
    "TrialVectorEnv": "worlds.trial_env",
    "adaptation_curve": "evaluation.evaluate",
    "check_family": "checks.families",
    "check_learner": "checks.learners",
    "config_from_file": "run.settings_file",
    "evaluate": "evaluation.evaluate",
    "export_policy": "evaluation.export",
    "load_run": "evaluation.evaluate",
    "load_session": "evaluation.evaluate",
    "make_family": "families.family",
    "resume": "training.train",
    "train": "training.train",
}

__all__ = [
    "AdaptationCurve",
    "Callback",
    "EarlyStopping",
    "InputError",
    "KeepBest",
    "MetarlError",
    "RunConfig",
    "RunError",
    "Sampler",
    "Sb3VecEnv",
    "Session",
    "TaskSplit",
    "TextWrapper",
    "TimeLimit",
    "TrainConfig",
    "TrialEnv",
    "TrialVectorEnv",
    "__version__",
    "adaptation_curve",
    "check_family",
    "check_learner",
    "config_from_file",
    "evaluate",
    "export_policy",
    "load_run",
    "load_session",
    "make_family",
    "resume",
    "train",
]

register_ids()


def __getattr__(name: str) -> Any:
    """Import a public name, or a module of this package, at its first use."""
    if name == "__version__":
        from importlib.metadata import version

        return version("metarl-gym")
    if name in _HOMES:
        return getattr(import_module(f"metarl.{_HOMES[name]}"), name)
    if not name.startswith("_") and find_spec(f"metarl.{name}") is not None:
        return import_module(f"metarl.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Return the public names."""
    return sorted({*globals(), *__all__})
