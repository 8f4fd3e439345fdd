"""``metarl push``: publish a trained run on the Hugging Face Hub, from where ``hub:OWNER/NAME`` brings it anywhere."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import tyro

from metarl.errors import InputError, RunError
from metarl.experiments.commands.arguments import RunName
from metarl.experiments.commands.parsing import parse
from metarl.experiments.commands.run_card import run_card
from metarl.run.directory import CheckpointChoice, RunDirectory, iteration_of
from metarl.run.metrics_file import column_names, write_rows
from metarl.storage.hub import PREFIX, require_hub, write_contents


@dataclass(frozen=True)
class PushOptions:
    """Publish a run on the Hugging Face Hub, with a model card: configuration, metrics, a checkpoint, evaluation."""

    run: RunName
    """Directory of the run, which has been evaluated."""
    repository: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="OWNER/NAME")]
    """Repository of the Hub, OWNER/NAME; it is created if it does not exist."""
    checkpoint: CheckpointChoice = "latest"
    """Which checkpoint: the latest, the best on validation tasks, or the number of an iteration whose one is kept."""
    private: bool = False
    """Create the repository as a private one."""
    revision: str | None = None
    """Branch to push to; by default main."""


def run(words: Sequence[str]) -> None:
    """Publish, and print where.

    Raises:
        InputError: if the name is not OWNER/NAME, the directory is not a run, or its checkpoint has not been evaluated.
        RunError: if the Hub refuses.
    """
    options = parse(PushOptions, "metarl push", words)
    if options.repository.count("/") != 1:
        raise InputError(f"{options.repository!r} is not OWNER/NAME, your name on the Hub and the repository's")
    hub = require_hub()
    hub.utils.disable_progress_bars()
    api = hub.HfApi()
    with TemporaryDirectory() as temporary:
        pack(RunDirectory(options.run), Path(temporary), options.checkpoint, f"{PREFIX}{options.repository}")
        try:
            hub.utils.validate_repo_id(options.repository)
            api.create_repo(options.repository, private=options.private, exist_ok=True)
            api.upload_folder(repo_id=options.repository, folder_path=temporary, revision=options.revision)
        except hub.errors.HFValidationError as error:
            raise InputError(f"{options.repository!r} is not OWNER/NAME: {first_line(error)}") from None
        except hub.errors.HTTPError as error:
            raise RunError(f"the run was not published: {first_line(error)}; the run itself is unchanged") from None
    who = "those with access" if options.private else "anyone"
    revision = f"@{options.revision}" if options.revision else ""
    print(f"published; {who} can now run: metarl evaluate {PREFIX}{options.repository}{revision}")


def pack(directory: RunDirectory, folder: Path, checkpoint: CheckpointChoice, name: str) -> None:
    """Copy what is published of a run to a folder, and write its card and contents.json.

    Args:
        directory: the run.
        folder: an existing, empty folder.
        checkpoint: which checkpoint; the rows of metrics.csv after it are left out.
        name: what the published run is called, ``hub:...``.

    Raises:
        InputError: if the directory is not a run, or the checkpoint has not been evaluated.
    """
    content = directory.read_config()
    file = directory.find_checkpoint(checkpoint)
    directory.load_checkpoint(file)  # refuses one that is missing or damaged
    iteration = iteration_of(file)
    evaluation = _evaluation(directory, iteration, checkpoint)
    files = [directory.config, directory.evaluation, directory.curve]
    if directory.finished_iterations() == iteration:
        files.append(directory.finished)
    for each in files:
        shutil.copyfile(each, folder / each.name)
    rows = directory.metrics_until(iteration)
    write_rows(folder / directory.metrics.name, column_names(directory.metrics), rows)
    (folder / "checkpoints").mkdir()
    shutil.copyfile(file, folder / "checkpoints" / file.name)
    (folder / "README.md").write_text(run_card(name, content, evaluation, rows))
    write_contents(folder)


def _evaluation(directory: RunDirectory, iteration: int, checkpoint: CheckpointChoice) -> dict[str, Any]:
    """Return the evaluation of a checkpoint on test tasks."""
    try:
        content: dict[str, Any] = json.loads(directory.evaluation.read_text())
        if content["iteration"] == iteration:
            return content
    except (FileNotFoundError, ValueError, KeyError):
        pass
    option = "" if checkpoint == "latest" else f" --checkpoint {checkpoint}"
    raise InputError(
        f"{directory.path} has no evaluation of iteration {iteration}, which its card would show; make it with: "
        f"metarl evaluate {directory.path}{option}"
    )


def first_line(error: Exception) -> str:
    """Return the first line of a message."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
