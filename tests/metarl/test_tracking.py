import json
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensordict import TensorDict
from wandb.proto.wandb_internal_pb2 import Record

from metarl.errors import InputError
from metarl.evaluation import AdaptationCurve
from metarl.figures import draw_adaptation_curve
from metarl.tracking import NoTracker, make_tracker, offline_run
from metarl.training import resume, train
from tests.runs import numbers, run_python, small, train_words

HEADER, BLOCK = 7, 32768


@pytest.fixture(autouse=True)
def _nobody_is_logged_in(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    for name in ("WANDB_API_KEY", "WANDB_MODE", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path_factory.mktemp("home")))


def records(path: Path) -> Iterator[Record]:
    """Read a W&B run file: protobuf records in LevelDB's log format, behind a header of W&B's own."""
    content = path.read_bytes()
    assert content.startswith(b":W&B")
    position, gathered = HEADER, b""
    while position + HEADER <= len(content):
        left = BLOCK - position % BLOCK
        if left < HEADER:
            position += left
            continue
        # checksum (4 bytes), size, kind: 1 whole, 2 first, 3 middle, 4 last piece
        size, kind = struct.unpack_from("<HB", content, position + 4)
        position += HEADER + size
        if position > len(content):
            return  # still being written
        gathered += content[position - size : position]
        if kind in (1, 4):
            yield Record.FromString(gathered)
            gathered = b""


def run_file(directory: Path) -> Path:
    folder = offline_run(directory)
    assert folder is not None
    (found,) = folder.glob("*.wandb")
    return found


def ended_run(file: Path) -> list[Record]:
    """Return the records of a run that was finished; W&B's own process may still be writing the last of them."""
    deadline = time.monotonic() + 30
    found: list[Record] = []
    while not any(record.HasField("exit") for record in found):
        found = list(records(file))
        assert time.monotonic() < deadline, f"{file} has no end"
        time.sleep(0.02)
    return found


class Recorded:
    """What stands in the run file of a run directory."""

    def __init__(self, directory: Path) -> None:
        self.all = ended_run(run_file(directory))

    def of(self, kind: str) -> list[Any]:
        return [getattr(record, kind) for record in self.all if record.WhichOneof("record_type") == kind]

    def history(self) -> list[dict[str, Any]]:
        return [
            {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in row.item}
            for row in self.of("history")
        ]

    def config(self) -> dict[str, Any]:
        (run,) = self.of("run")
        return {item.key: json.loads(item.value_json) for item in run.config.update}

    def axes(self) -> dict[str, str]:
        return {metric.name or metric.glob_name: metric.step_metric for metric in self.of("metric")}


@pytest.fixture(scope="module")
def tracked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Recorded]:
    """Return a real offline run, and its run file, read back."""
    path = tmp_path_factory.mktemp("tracking") / "run"
    train(small(path, "navigation-2d", horizon=5, iterations=2, track="offline"))
    return path, Recorded(path)


def test_the_run_file_holds_the_resolved_config(tracked: tuple[Path, Recorded]) -> None:
    config = tracked[1].config()
    written = json.loads((tracked[0] / "config.json").read_text())
    assert {key: config[key] for key in written} == written


def test_it_holds_group_and_job_type(tracked: tuple[Path, Recorded]) -> None:
    (run,) = tracked[1].of("run")
    assert (run.run_group, run.job_type, run.project) == ("maml-trpo-navigation-2d-maml", "train", "metarl")


def test_it_has_the_id_of_the_run(tracked: tuple[Path, Recorded]) -> None:
    assert tracked[1].of("run")[0].run_id == tracked[1].config()["tracking_id"]


def test_it_holds_every_iteration(tracked: tuple[Path, Recorded]) -> None:
    rows = [row for row in tracked[1].history() if "return_before" in row]
    names = ("iteration", "env_steps", "return_before", "return_after", "gain")
    assert [{name: float(row[name]) for name in names} for row in rows] == [
        {name: float(row[name]) for name in names} for row in numbers(tracked[0])
    ]


def test_it_holds_the_adaptation_curve(tracked: tuple[Path, Recorded]) -> None:
    rows = [row for row in tracked[1].history() if "adaptation/return" in row]
    assert [row["adaptation_step"] for row in rows] == [0, 1]
    assert [row["adaptation/env_steps"] for row in rows] == [0, 15]


def test_returns_stand_against_env_steps_and_the_rest_against_iterations(tracked: tuple[Path, Recorded]) -> None:
    axes = tracked[1].axes()
    assert {axes[name] for name in ("return_before", "return_after", "gain")} == {"env_steps"}
    assert axes["*"] == "iteration"
    assert axes["adaptation/*"] == "adaptation_step"


def test_checkpoint_and_curve_are_artifacts(tracked: tuple[Path, Recorded]) -> None:
    artifacts = {artifact.type: [entry.path for entry in artifact.manifest.contents] for artifact in
                 tracked[1].of("artifact")}  # fmt: skip
    assert artifacts == {"model": ["checkpoint.pt"], "curve": ["adaptation_curve.png"]}


def test_the_run_file_is_closed(tracked: tuple[Path, Recorded]) -> None:
    assert [record.exit_code for record in tracked[1].of("exit")] == [0]


def test_the_folder_of_the_offline_run_is_found(tracked: tuple[Path, Recorded]) -> None:
    folder = offline_run(tracked[0])
    assert folder is not None
    assert folder.name.startswith("offline-run-")


def test_a_run_without_tracking_has_no_offline_run(tmp_path: Path) -> None:
    assert offline_run(tmp_path) is None


def test_a_resumed_run_goes_on_under_its_id(tmp_path: Path) -> None:
    train(small(tmp_path / "run", iterations=1, track="offline"))
    resume(tmp_path / "run", iterations=2)
    files = sorted((tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb"))
    iterations = [
        json.loads(item.value_json)
        for file in files
        for record in ended_run(file)
        for item in record.history.item
        if item.nested_key == ["iteration"] and any("gain" in each.nested_key for each in record.history.item)
    ]
    assert len({file.name for file in files}) == 1
    assert sorted(iterations) == [0, 1]


def test_tracking_does_not_change_the_numbers(tracked: tuple[Path, Recorded], tmp_path: Path) -> None:
    train(small(tmp_path / "run", "navigation-2d", horizon=5, iterations=2))
    assert numbers(tmp_path / "run") == numbers(tracked[0])


WHAT_IS_LOADED = """
import sys
from metarl.experiments.cli import main
assert main(sys.argv[1:]) == 0
print(sorted(name for name in sys.modules if name.split(".")[0] == "wandb"))
"""


def test_a_run_without_tracking_imports_no_wandb(tmp_path: Path) -> None:
    words = train_words("bandit", "--iterations", 1, out="run")
    assert run_python("-c", WHAT_IS_LOADED, *words, cwd=tmp_path).stdout.splitlines()[-1] == "[]"
    assert not (tmp_path / "run" / "wandb").exists()


def make(tmp_path: Path, track: str) -> Any:
    return make_tracker(track, tmp_path, {}, "group", "train", "id")


def test_wandb_mode_disabled_switches_auto_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert isinstance(make(tmp_path, "auto"), NoTracker)


def test_an_explicit_disabled_beats_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "online")
    assert isinstance(make(tmp_path, "disabled"), NoTracker)


def modes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let trackers only say which mode they were made with."""
    seen: list[str] = []

    def note(directory: Path, mode: str, *rest: Any) -> None:
        seen.append(mode)

    monkeypatch.setattr("metarl.tracking.WandbTracker", note)
    return seen


def test_auto_is_offline_without_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = modes(monkeypatch)
    make(tmp_path, "auto")
    assert seen == ["offline"]


def test_auto_is_online_with_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = modes(monkeypatch)
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    make(tmp_path, "auto")
    assert seen == ["online"]


def test_auto_is_online_with_a_login_in_netrc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = modes(monkeypatch)
    (tmp_path / ".netrc").write_text("machine api.wandb.ai\n  login user\n  password " + "x" * 40 + "\n")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    make(tmp_path, "auto")
    assert seen == ["online"]


def test_auto_follows_wandb_mode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = modes(monkeypatch)
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    monkeypatch.setenv("WANDB_MODE", "offline")
    make(tmp_path, "auto")
    assert seen == ["offline"]


def test_another_word_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="track must be auto, online, offline or disabled, not 'sometimes'"):
        make(tmp_path, "sometimes")


def test_another_wandb_mode_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "sometimes")
    with pytest.raises(InputError, match="sometimes"):
        make(tmp_path, "auto")


def test_online_without_a_key_becomes_offline_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_tracker("online", tmp_path, {}, "group", "train", "without-key").finish()
    assert "metarl: W&B cannot be reached" in capsys.readouterr().err
    assert run_file(tmp_path).exists()


def test_online_without_a_network_becomes_offline_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import wandb

    real = wandb.Settings
    # Nobody listens on port 9 (discard).
    nowhere = {"base_url": "http://127.0.0.1:9", "init_timeout": 2}
    monkeypatch.setattr(wandb, "Settings", lambda **given: real(**{**given, **nowhere}))
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    make_tracker("online", tmp_path, {}, "group", "train", "unreachable").finish()
    assert "metarl: W&B cannot be reached" in capsys.readouterr().err
    assert run_file(tmp_path).exists()


def test_an_untracked_run_takes_every_report(tmp_path: Path) -> None:
    tracker = make(tmp_path, "disabled")
    returns = np.zeros((2, 2))
    curve = AdaptationCurve(TensorDict({"goal": torch.zeros(2)}, [2]), returns, np.zeros(2), 1, "test")
    draw_adaptation_curve(curve, tmp_path / "curve.png", "title")
    tracker.log({"iteration": 0})
    tracker.log_curve(curve, tmp_path / "curve.png")
    tracker.log_checkpoint(tmp_path / "checkpoint.pt")
    tracker.finish()
    assert [path.name for path in tmp_path.iterdir()] == ["curve.png"]
