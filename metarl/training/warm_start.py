"""Starting a run with what the learner of another run has learned."""

from pathlib import Path

from metarl.errors import InputError
from metarl.evaluation.evaluate import load_run
from metarl.learning.learner import Learner
from metarl.storage.checkpoint_format import find_misfit


def start_from(learner: Learner, path: str | Path) -> None:
    """Give a new learner the state of a trained one: parameters, optimisers' moments, counts and random streams.

    Replay buffers are not copied. The two runs may differ in everything else: the family, as long as its spaces are the
    same, and every setting that does not change the form of the networks.

    Args:
        learner: the new one, on any number of processes.
        path: the other run, of which the latest checkpoint is taken.

    Raises:
        InputError: if the directory is not a run, or its learner is another one or of another form.
    """
    trained = learner.processes.from_first(lambda: _trained(learner, path))
    learner.load_state_dict(trained)


def _trained(learner: Learner, path: str | Path) -> dict[str, object]:
    _, other, _ = load_run(path, "cpu")  # its device need not be on this machine
    if other.name != learner.name:
        raise InputError(f"{path} is a run of {other.name}; {learner.name} can only start from a run of {learner.name}")
    trained = other.state_dict()
    if (misfit := find_misfit(learner.state_dict(), trained, "learner")) is not None:
        raise InputError(
            f"the learner of {path} has other networks or spaces ({misfit}); start from a run with the same ones"
        )
    return trained
