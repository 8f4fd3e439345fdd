from pathlib import Path

from metarl.experiments.commands.run_files import list_files
from metarl.run.directory import RunDirectory


def test_only_files_that_are_there_are_named(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path)
    directory.metrics.write_text("")
    assert list_files(directory) == f"metrics   {directory.metrics}"


def test_the_wandb_run_is_named_where_there_is_one_and_how_to_upload_it_if_it_was_offline(tmp_path: Path) -> None:
    (run := tmp_path / "wandb" / "run-1").mkdir(parents=True)
    assert list_files(RunDirectory(tmp_path)) == f"W&B run   {run}"
    offline = run.rename(run.with_name("offline-run-20261126_010308-1"))
    (offline / "run-1.wandb").write_bytes(bytes(100))
    assert list_files(RunDirectory(tmp_path)) == f"W&B run   {offline}\nupload    wandb sync {offline}"
