"""Meta-reinforcement learning: policies that adapt to a new task within a few episodes.

This is the front door: it registers every task family and learner, and exports what a script needs. It is above the
floors of ARCHITECTURE.md; modules import each other directly, never from here. Simulators, Stable-Baselines3, and the
libraries for plotting, video and tracking are imported when they are used.
"""

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from metarl.agents.baselines.sb3.vec_env import Sb3VecEnv

# OpenMP reads it when torch is loaded, so it must be set before. By default idle workers spin for a long time, and
# another process on one of their cores (a second run, a browser) slows an update down a lot: see docs/performance.md.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")

import metarl.agents
import metarl.envs  # noqa: F401 (registers the families)
from metarl.checks.families import check_family
from metarl.checks.learners import check_learner
from metarl.config import RunConfig, TrainConfig
from metarl.errors import InputError, MetarlError, RunError
from metarl.evaluation import AdaptationCurve, adaptation_curve, evaluate, load_run, load_session
from metarl.family import make_family
from metarl.sampler import Sampler
from metarl.session import Session
from metarl.splits import TaskSplit
from metarl.training import resume, train
from metarl.trial_env import TrialEnv, TrialVectorEnv

__all__ = [
    "AdaptationCurve",
    "InputError",
    "MetarlError",
    "RunConfig",
    "RunError",
    "Sampler",
    "Sb3VecEnv",
    "Session",
    "TaskSplit",
    "TrainConfig",
    "TrialEnv",
    "TrialVectorEnv",
    "adaptation_curve",
    "check_family",
    "check_learner",
    "evaluate",
    "load_run",
    "load_session",
    "make_family",
    "resume",
    "train",
]


def __getattr__(name: str) -> Any:
    """Import what needs Stable-Baselines3 when it is used."""
    if name == "Sb3VecEnv":
        from metarl.agents.baselines.sb3.vec_env import Sb3VecEnv

        return Sb3VecEnv
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
