import csv
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from metarl.errors import InputError
from metarl.run.config_file import config_hash
from metarl.run.directory import FORMAT, RunDirectory, iteration_of
from metarl.storage.checkpoint_format import MAGIC
from metarl.storage.files import write_json, write_whole

CONTENT = {"iteration": 3, "learner": {"params": {"weight": torch.arange(4.0)}}}


def files(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.iterdir())


@pytest.fixture
def directory(tmp_path: Path) -> RunDirectory:
    made = RunDirectory(tmp_path / "run")
    made.make()
    return made


def test_a_whole_file_takes_its_place(tmp_path: Path) -> None:
    write_whole(tmp_path / "file", lambda part: part.write_text("new"))
    assert (tmp_path / "file").read_text() == "new"


def test_nothing_but_the_file_is_left(tmp_path: Path) -> None:
    write_whole(tmp_path / "file", lambda part: part.write_text("new"))
    assert files(tmp_path) == ["file"]


def fail_midway(part: Path) -> None:
    part.write_text("ne")
    raise OSError(28, "No space left on device")


def test_writing_that_fails_midway_leaves_the_old_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    with pytest.raises(OSError, match="No space left"):
        write_whole(tmp_path / "file", fail_midway)
    assert (tmp_path / "file").read_text() == "old"


def test_writing_that_fails_midway_leaves_no_part(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space left"):
        write_whole(tmp_path / "file", fail_midway)
    assert files(tmp_path) == []


def test_while_it_is_written_the_old_file_is_there(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    seen: list[str] = []

    def write(part: Path) -> None:
        part.write_text("new")
        seen.append((tmp_path / "file").read_text())

    write_whole(tmp_path / "file", write)
    assert seen == ["old"]


def test_it_is_on_disk_before_it_is_in_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    replace = os.replace
    monkeypatch.setattr(os, "fsync", lambda number: order.append("fsync"))
    monkeypatch.setattr(os, "replace", lambda *paths: (order.append("replace"), replace(*paths)))
    write_whole(tmp_path / "file", lambda part: part.write_text("new"))
    assert order == ["fsync", "replace"]


def test_json_that_cannot_be_written_leaves_the_old_file(tmp_path: Path) -> None:
    write_json(tmp_path / "file", {"a": 1})
    with pytest.raises(TypeError):
        write_json(tmp_path / "file", {"a": object()})
    assert json.loads((tmp_path / "file").read_text()) == {"a": 1}


def test_a_run_makes_its_folders(tmp_path: Path) -> None:
    RunDirectory(tmp_path / "a" / "b").make()
    assert files(tmp_path / "a" / "b") == []


def test_an_empty_folder_will_do(tmp_path: Path) -> None:
    RunDirectory(tmp_path).make()
    RunDirectory(tmp_path).require_empty()
    assert files(tmp_path) == []


def test_an_occupied_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match=r"is not empty; choose another --out.*--resume"):
        RunDirectory(tmp_path).require_empty()


def test_a_refused_folder_is_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    RunDirectory(tmp_path).make()
    with pytest.raises(InputError):
        RunDirectory(tmp_path).require_empty()
    assert files(tmp_path) == ["thesis.txt"]


def test_a_place_under_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match=r"cannot write the run to .*Not a directory; choose another --out"):
        RunDirectory(tmp_path / "file" / "run").make()


def test_a_file_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="cannot write the run to"):
        RunDirectory(tmp_path / "file").make()


def test_a_config_is_read_as_written(directory: RunDirectory) -> None:
    directory.write_config({"learner": "x"})
    assert directory.read_config() == {"format": FORMAT, "learner": "x"}


def test_a_missing_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no run directory"):
        RunDirectory(tmp_path / "nowhere").read_config()


def test_a_folder_without_config_is_no_run(directory: RunDirectory) -> None:
    with pytest.raises(InputError, match="is not a run directory of metarl"):
        directory.read_config()


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"name": "another program"}', "\x00\xff"], ids=repr)
def test_a_foreign_or_truncated_config_is_refused(directory: RunDirectory, text: str) -> None:
    directory.config.write_text(text, encoding="latin-1")
    with pytest.raises(InputError, match=r"config\.json is damaged or was not written by metarl"):
        directory.read_config()


def test_a_config_of_another_format_is_refused(directory: RunDirectory) -> None:
    directory.config.write_text('{"format": "metarl run 99"}')
    with pytest.raises(InputError, match="the format 'metarl run 99', but this version of metarl reads 'metarl run 2'"):
        directory.read_config()


def test_a_checkpoint_is_read_as_written(directory: RunDirectory) -> None:
    directory.save_checkpoint(CONTENT)
    found = directory.load_checkpoint()
    assert found["iteration"] == 3
    assert torch.equal(found["learner"]["params"]["weight"], torch.arange(4.0))


def test_a_missing_checkpoint_is_refused(directory: RunDirectory) -> None:
    with pytest.raises(InputError, match=r"has no checkpoint yet; start it with metarl train --resume "):
        directory.load_checkpoint()


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.99])
def test_a_truncated_checkpoint_is_refused(directory: RunDirectory, share: float) -> None:
    directory.save_checkpoint(CONTENT)
    whole = directory.checkpoint.read_bytes()
    directory.checkpoint.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(InputError, match=r"is truncated or damaged: .*; restore it from a copy, or start a new run"):
        directory.load_checkpoint()


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"\x80\x02K\x01.", MAGIC, MAGIC + bytes(99)], ids=repr)
def test_a_foreign_file_in_its_place_is_refused(directory: RunDirectory, content: bytes) -> None:
    directory.save_checkpoint(CONTENT)
    directory.checkpoint.write_bytes(content)
    with pytest.raises(InputError, match="iteration-3 is truncated or damaged: "):
        directory.load_checkpoint()


def test_a_checkpoint_of_another_program_is_refused_and_runs_no_code(directory: RunDirectory, tmp_path: Path) -> None:
    class Harm:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "harm"),)

    directory.save_checkpoint(CONTENT)
    torch.save({"format": FORMAT, "learner": Harm()}, directory.checkpoint)
    with pytest.raises(InputError, match="it does not begin as a checkpoint of metarl"):
        directory.load_checkpoint()
    assert not (tmp_path / "harm").exists()


def test_a_damaged_checkpoint_names_the_one_to_resume_from(directory: RunDirectory) -> None:
    for iteration in (3, 7, 12):
        directory.save_checkpoint({**CONTENT, "iteration": iteration})
    directory.checkpoint.write_bytes(b"")
    with pytest.raises(InputError, match=r"iteration-12 is .*; remove it to resume from .* iteration 7"):
        directory.load_checkpoint()
    directory.checkpoint.unlink()
    assert directory.load_checkpoint()["iteration"] == 7


def test_a_checkpoint_under_the_name_of_another_is_refused(directory: RunDirectory) -> None:
    directory.save_checkpoint(CONTENT).rename(directory.checkpoints / "iteration-4")
    with pytest.raises(InputError, match="iteration-4 contains iteration 3"):
        directory.load_checkpoint()


def test_a_checkpoint_that_may_not_be_read_is_not_called_damaged(
    directory: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    directory.save_checkpoint(CONTENT)
    monkeypatch.setattr(Path, "read_bytes", forbidden)
    with pytest.raises(InputError, match="iteration-3 cannot be read: Permission denied"):
        directory.load_checkpoint()


def test_a_run_of_an_earlier_metarl_is_refused_in_a_line_that_says_why(directory: RunDirectory) -> None:
    (directory.path / "checkpoint.pt").touch()
    with pytest.raises(InputError, match=r"earlier version of metarl, whose checkpoint\.pt has no checksum"):
        directory.load_checkpoint()


def test_lost_checkpoints_are_not_taken_for_a_run_that_has_only_begun(directory: RunDirectory) -> None:
    directory.append_metrics({"iteration": 0, "loss": 0.5})
    with pytest.raises(InputError, match="has lost its checkpoints"):
        directory.load_checkpoint()


def test_the_home_folder_is_written_as_usual(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert RunDirectory("~/runs/a").path == tmp_path / "runs" / "a"


def test_a_path_with_a_nul_byte_is_refused() -> None:
    with pytest.raises(InputError, match="holds a NUL byte; choose another --out"):
        RunDirectory("a\0b")


CONFIG = {"format": FORMAT, "learner": "x", "tracking_id": "a", "versions": {}, "run": {"iterations": 3, "seed": 1}}


def test_the_hash_of_a_config_knows_what_may_change() -> None:
    changed = {**CONFIG, "tracking_id": "b", "run": {"iterations": 9, "seed": 1}}
    assert config_hash(changed) == config_hash(CONFIG)
    others = [{"run": {"iterations": 3, "seed": 2}}, {"learner": "y"}, {"versions": {"torch": "9"}}]
    others += [{"torch_threads": 3}, {"data_hash": "c"}]
    assert config_hash(CONFIG) not in [config_hash({**CONFIG, **other}) for other in others]


def test_tuples_hash_as_the_lists_that_json_makes_of_them() -> None:
    one, other = ({**CONFIG, "settings": {"sizes": sizes}} for sizes in ((1, 2), [1, 2]))
    assert config_hash(one) == config_hash(other)


def test_metrics_are_one_row_each(directory: RunDirectory) -> None:
    for iteration in range(3):
        directory.append_metrics({"iteration": iteration, "loss": 0.5})
    assert directory.metrics.read_text().splitlines() == ["iteration,loss", "0,0.5", "1,0.5", "2,0.5"]


def test_metrics_keep_every_digit(directory: RunDirectory) -> None:
    directory.append_metrics({"iteration": 0, "loss": 0.1 + 0.2})
    assert float(directory.read_metrics()[0]["loss"]) == 0.1 + 0.2


def test_a_run_without_metrics_has_none(directory: RunDirectory) -> None:
    assert directory.read_metrics() == []


def test_rows_after_a_checkpoint_are_dropped(directory: RunDirectory) -> None:
    for iteration in range(5):
        directory.append_metrics({"iteration": iteration, "loss": 0.5})
    directory.keep_metrics(3)
    assert [row["iteration"] for row in directory.read_metrics()] == [0, 1, 2]


def test_a_torn_row_is_dropped(directory: RunDirectory) -> None:
    for iteration in range(3):
        directory.append_metrics({"iteration": iteration, "loss": 0.5})
    with open(directory.metrics, "a") as stream:
        stream.write("3")
    directory.keep_metrics(3)
    directory.append_metrics({"iteration": 3, "loss": 0.25})
    with open(directory.metrics, newline="") as stream:
        assert list(csv.reader(stream))[-2:] == [["2", "0.5"], ["3", "0.25"]]


def test_before_the_first_iteration_all_rows_are_dropped(directory: RunDirectory) -> None:
    directory.append_metrics({"iteration": 0, "loss": 0.5})
    directory.keep_metrics(0)
    directory.append_metrics({"iteration": 0, "loss": 0.25})
    assert directory.read_metrics() == [{"iteration": 0, "loss": 0.25}]


def test_what_was_not_measured_is_empty(directory: RunDirectory) -> None:
    directory.append_metrics({"iteration": 0, "loss": None})
    assert directory.read_metrics() == [{"iteration": 0, "loss": None}]


def test_a_column_that_comes_later_is_empty_in_the_rows_before(directory: RunDirectory) -> None:
    # A run that an earlier metarl began has fewer columns.
    directory.append_metrics({"iteration": 0, "loss": 0.5})
    directory.append_metrics({"iteration": 1, "error": 2.0, "loss": 0.25})
    assert directory.metrics.read_text().splitlines() == ["iteration,loss,error", "0,0.5,", "1,0.25,2.0"]


def test_columns_of_the_last_kept_row_can_be_forgotten(directory: RunDirectory) -> None:
    for iteration in range(3):
        directory.append_metrics({"iteration": iteration, "loss": 0.5, "validation/loss": 0.75})
    directory.keep_metrics(2, forget="validation/")
    assert [row["validation/loss"] for row in directory.read_metrics()] == [0.75, None]
    assert [row["loss"] for row in directory.read_metrics()] == [0.5, 0.5]


def save(directory: RunDirectory, **values: float | None) -> None:
    for iteration, value in values.items():
        directory.save_checkpoint({"iteration": int(iteration[1:]), "validation": value})


@pytest.mark.parametrize(
    ("values", "best"),
    [
        ({"_9": -2.0, "_10": -1.0}, 10),
        ({"_9": -1.0, "_10": -2.0}, 9),
        ({"_9": -1.0, "_10": None}, 9),
        ({"_10": -1.0, "_9": -1.0}, 9),
    ],
    ids=str,
)
def test_the_best_checkpoint_is_the_first_of_the_highest_value(
    values: dict[str, float | None], best: int, directory: RunDirectory
) -> None:
    save(directory, **values)
    assert iteration_of(directory.find_checkpoint("best")) == best
    assert iteration_of(directory.find_checkpoint("latest")) == 10


def test_where_none_was_validated_there_is_no_best(directory: RunDirectory) -> None:
    assert directory.best_checkpoint() is None
    save(directory, _1=None)
    assert directory.best_checkpoint() is None
    with pytest.raises(InputError, match="has been validated, so there is no best one"):
        directory.find_checkpoint("best")


def test_a_damaged_checkpoint_is_never_passed_over_as_not_the_best(directory: RunDirectory) -> None:
    save(directory, _1=1.0, _2=2.0)
    directory.checkpoint.write_bytes(b"not a checkpoint")
    with pytest.raises(InputError, match="iteration-2 is truncated or damaged"):
        directory.find_checkpoint("best")


def test_videos_are_found_by_their_endings(directory: RunDirectory) -> None:
    for name in ("b.mp4", "a.gif", "curve.png", "notes.txt"):
        (directory.path / name).touch()
    assert [path.name for path in directory.videos()] == ["a.gif", "b.mp4"]


def test_a_folder_of_runs_names_them(tmp_path: Path) -> None:
    for seed in (1, 2):
        (tmp_path / f"seed{seed}").mkdir()
        (tmp_path / f"seed{seed}" / "config.json").touch()
    with pytest.raises(InputError, match=r"it has no config\.json; the runs in it are seed1, seed2$"):
        RunDirectory(tmp_path).read_config()
