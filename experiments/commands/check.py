"""``metarl check``: verify every file of a run directory, and that its evaluations can be reproduced."""

import json
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from metarl.errors import InputError, RunError
from metarl.evaluation.evaluate import evaluate_learner, load_learner
from metarl.experiments.commands.arguments import RunName
from metarl.experiments.commands.parsing import parse
from metarl.experiments.commands.run_files import describe_evaluation
from metarl.learning.learner import Learner
from metarl.run.checkpointing import check_metrics
from metarl.run.config import TrainConfig
from metarl.run.config_file import config_hash
from metarl.run.directory import RunDirectory, iteration_of
from metarl.run.identity import check_belongs
from metarl.run.replay_files import ReplayFiles
from metarl.storage.hub import CONTENTS
from metarl.storage.lock import is_lock_file

DAMAGED = (InputError, OSError, ValueError, KeyError, TypeError, IndexError, zipfile.BadZipFile)


@dataclass(frozen=True)
class CheckOptions:
    """Verify configuration, metrics, checkpoints, replay buffers and figures of a run, and repeat its evaluations."""

    run: RunName
    """Directory of the run, which is only read."""
    device: str | None = None
    """Torch device to repeat evaluations on; by default the original one of each."""


def run(words: Sequence[str]) -> None:
    """Print a line for each file with the result of its check.

    Raises:
        InputError: if the directory is not a run.
        RunError: if any check fails.
    """
    options = parse(CheckOptions, "metarl check", words)
    directory = RunDirectory(options.run)
    content = directory.read_config()
    config = TrainConfig.from_json(content, options.device)
    wrong = 0
    for path, verify in _checks(directory, config, content, options.device):
        try:
            found, right = verify(), True
        except DAMAGED as error:
            found, right = str(error).splitlines()[0], False
        wrong += not right
        print(f"{'ok' if right else 'WRONG':<7}{path.relative_to(directory.path)}: {found}")
    if wrong:
        raise RunError(f"{directory.path}: {wrong} {'file is' if wrong == 1 else 'files are'} wrong")


def _checks(
    directory: RunDirectory, config: TrainConfig, content: dict[str, Any], device: str | None
) -> Iterator[tuple[Path, Callable[[], str]]]:
    """Yield each file with a function that returns a description of it, or raises an error."""
    yield directory.config, lambda: f"{config.learner} on {config.family}, SHA-256 {config_hash(content)[:12]}"
    # Without any, the first one is the one that is missing.
    for path in directory.checkpoint_files() or [directory.checkpoint]:
        yield path, lambda path=path: _check_checkpoint(directory, config, content, path)  # type: ignore[misc]
    yield directory.metrics, lambda: _check_metrics(directory)
    if config.make_learner().replays():
        yield directory.replay, lambda: _check_replay(directory, config)
    for path in sorted(directory.path.glob("*.png")):
        yield path, lambda path=path: _check_picture(path)  # type: ignore[misc]
    for path in sorted(directory.path.glob("evaluation*.json")):
        yield path, lambda path=path: _repeat(directory, content, device, path)  # type: ignore[misc]
    for path in sorted(directory.path.rglob(".*")):
        if is_lock_file(path.name) or path.name.endswith(".part"):
            yield path, lambda: "left by a process that is running or was killed; harmless"


def _load(directory: RunDirectory, config: TrainConfig, content: dict[str, Any], path: Path) -> Learner:
    """Return the learner of a checkpoint after all checks that evaluating and resuming make."""
    checkpoint = directory.load_checkpoint(path)
    check_belongs(directory, path, checkpoint, content)
    learner = config.make_learner()
    load_learner(learner, checkpoint, path)
    return learner


def _check_checkpoint(directory: RunDirectory, config: TrainConfig, content: dict[str, Any], path: Path) -> str:
    _load(directory, config, content, path)
    checkpoint = directory.load_checkpoint(path)
    return f"{checkpoint['iteration']} iterations, {checkpoint['env_steps']:,} env steps, whole and of this run"


def _check_metrics(directory: RunDirectory) -> str:
    for path in directory.checkpoint_files():
        check_metrics(directory, directory.load_checkpoint(path))
    return f"{len(directory.read_metrics())} rows, those that the checkpoints were written after"


def _check_replay(directory: RunDirectory, config: TrainConfig) -> str:
    if not directory.replay.exists() and (directory.path / CONTENTS).exists():
        return "not published: the run can be evaluated, but not resumed"
    files = ReplayFiles(directory.replay, config.make_learner().replays())
    files.load(directory.load_checkpoint()["replay"])
    return f"{len(list(directory.replay.glob('*')))} files, those of the latest checkpoint whole"


def _check_picture(path: Path) -> str:
    try:
        with Image.open(path) as image:
            image.verify()
        with Image.open(path) as image:
            image.load()
            return f"{image.width} x {image.height} pixels"
    except (SyntaxError, OSError) as error:
        # Pillow raises SyntaxError for a wrong checksum, and OSError without a number for a file that ends too early.
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise ValueError("it is not a complete image; metarl evaluate draws it again") from None


def _repeat(directory: RunDirectory, content: dict[str, Any], device: str | None, path: Path) -> str:
    """Repeat an evaluation with its settings, and compare all that is written of it."""
    record = json.loads(path.read_text())
    config = TrainConfig.from_json(content, device or record["device"])
    if record["config_hash"] != config_hash(content):
        raise ValueError("it was measured with another config.json")
    kept = [each for each in directory.checkpoint_files() if iteration_of(each) == record["iteration"]]
    if not kept:
        return f"of iteration {record['iteration']}, whose checkpoint is no longer kept: it cannot be repeated"
    returns = np.array(record["returns"])
    curve = evaluate_learner(
        config,
        _load(directory, config, content, kept[0]),
        len(returns),
        returns.shape[1] - 1,
        record["episodes_per_step"],
        record["seed"],
        record["part"],
        record["actions"] == "deterministic",
    )
    if curve.returns.shape != returns.shape or not (curve.returns == returns).all():
        raise ValueError(
            f"the evaluation does not reproduce: mean return after the last step {returns[:, -1].mean():.6g} there, "
            f"{curve.returns[:, -1].mean():.6g} now"
        )
    measured = describe_evaluation(directory, config, curve, record["iteration"], record["seed"])
    again = json.loads(json.dumps(measured))
    names = (again.keys() | record.keys()) - {"device"}
    if others := sorted(name for name in names if again.get(name) != record.get(name)):
        raise ValueError(f"the evaluation does not reproduce: {', '.join(others)} differ")
    return f"all {returns.size} returns reproduce"
