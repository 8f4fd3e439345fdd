"""Meta-reinforcement learning: policies that adapt to a new task within a few episodes.

This is the front door: it registers every task family and learner, and offers what a script needs. It stands above
the floors of ARCHITECTURE.md; modules import each other directly, never from here.
"""

import os

# Read by OpenMP when torch is loaded, here or never. By default its idle workers spin for long on their cores, and a
# neighbour on one of them (another run, a browser) makes an update many times slower: see docs/performance.md.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")

import metarl.agents
import metarl.envs  # noqa: F401 (registers the families)
from metarl.config import RunConfig, TrainConfig
from metarl.errors import InputError, MetarlError, RunError
from metarl.evaluation import AdaptationCurve, adaptation_curve, evaluate, load_run, load_session
from metarl.family import make_family
from metarl.sampler import Sampler
from metarl.session import Session
from metarl.splits import TaskSplit
from metarl.training import resume, train

__all__ = [
    "AdaptationCurve",
    "InputError",
    "MetarlError",
    "RunConfig",
    "RunError",
    "Sampler",
    "Session",
    "TaskSplit",
    "TrainConfig",
    "adaptation_curve",
    "evaluate",
    "load_run",
    "load_session",
    "make_family",
    "resume",
    "train",
]
