"""A check that a learner whose step size decays to 0 does not go on for longer."""

from pathlib import Path

from metarl.errors import InputError
from metarl.learning.learner import Learner
from metarl.run.config import TrainConfig


def refuse_ended_annealing(config: TrainConfig, learner: Learner, iterations: int, path: str | Path = "") -> None:
    """Refuse iterations in which the step size would be 0.

    A learner decays it over the ``anneal_iterations`` in its settings, counted with those of the run that it started
    from.

    Args:
        config: of the run.
        learner: with which it starts or goes on.
        iterations: that are to be done.
        path: directory of a run that is resumed.

    Raises:
        InputError: if there are such iterations.
    """
    annealed: int = getattr(config.settings, "anneal_iterations", 0)
    done = int(learner.state_dict().get("updates", 0)) if annealed else 0
    last = done + iterations
    if not annealed or not iterations or last <= annealed:
        return
    ends = f"--anneal-iterations {annealed} lets the step size decay to 0 in {annealed} iterations, but"
    if path:
        raise InputError(
            f"{ends} {path} would go on to {last}; start a new run with the same options and --from {path} "
            f"--anneal-iterations {last} --iterations {iterations}"
        )
    before = f", with the {done} of the run that it starts from" if done else ""
    raise InputError(f"{ends} there would be {last}{before}; use --anneal-iterations {last}, or 0 for a constant one")
