import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from metarl.errors import InputError, RunStopped
from metarl.experiments.commands import launch
from metarl.experiments.commands.launch import launched, parse_devices
from metarl.experiments.commands.main import main
from metarl.experiments.commands.parsing import take_option
from metarl.experiments.commands.seeds import Job, run_jobs
from metarl.run.directory import RunDirectory
from tests.forked import Child
from tests.runs import SMALL, numbers

WORDS = ["train", "maml-trpo", "navigation-2d", "--horizon", "10", *SMALL]


def test_devices_are_read_one_for_each_process() -> None:
    assert parse_devices("cpu") == ["cpu"]
    assert parse_devices("cpu*3, cpu") == ["cpu"] * 4
    every = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    assert parse_devices("all") == (every or ["cpu"] * len(os.sched_getaffinity(0)))


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("cpu*0", r"--devices cpu\*0: 'cpu\*0' needs a positive number of processes after the \*; for example cpu\*4"),
        ("cpu*x", r"needs a positive number of processes"),
        ("tpu", "unknown device 'tpu'"),
        ("", "unknown device ''"),
        ("cuda:99", "there is no CUDA device 'cuda:99' on this machine"),
    ],
)
def test_devices_that_are_not_there_are_refused(text: str, line: str) -> None:
    with pytest.raises(InputError, match=line):
        parse_devices(text)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--max-restarts", "3"], "--max-restarts restarts the processes of --devices: also give --devices"),
        (["--devices", "cpu*2", "--max-restarts", "x"], "--max-restarts must be a number of restarts, not 'x'"),
        (["--devices"], "--devices needs a value"),
    ],
)
def test_options_that_make_no_sense_are_refused(words: list[str], line: str) -> None:
    with pytest.raises(InputError, match=line):
        launched("train", words)


def test_devices_inside_a_launcher_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="started several processes already; leave out --devices"):
        launched("train", ["--devices", "cpu*2"])


def test_an_option_is_taken_out_of_the_words() -> None:
    assert take_option(["a", "--x", "1", "b"], "--x") == ("1", ["a", "b"])
    assert take_option(["a", "--x=1", "--xy", "2"], "--x") == ("1", ["a", "--xy", "2"])
    assert take_option(["a"], "--x") == (None, ["a"])


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--seeds", "1,1"], "--seeds takes different integers, as in --seeds 1,2,3"),
        (["--seeds", "one"], "--seeds takes different integers"),
        (["--seeds", "1,2", "--seed", "3"], "leave out --seed"),
        (["--seeds", "1,2", "--max-restarts", "3"], "leave out --max-restarts"),
    ],
)
def test_seeds_that_make_no_sense_are_refused(words: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*WORDS, *words]) == 2
    assert line in capsys.readouterr().err


def test_seeds_train_side_by_side_and_one_that_fails_takes_no_other_along(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "runs"
    (out / "seed2").mkdir(parents=True)
    (out / "seed2" / "metrics.csv").write_text("not what a run wrote")
    words = [*WORDS, "--iterations", "1", "--seeds", "1,2", "--devices", "cpu*2", "--out", str(out)]
    assert main(words) == 1
    shown = capsys.readouterr().err
    assert "seed 1: done" in shown
    assert "seed 2: failed" in shown
    assert "1 of 2 failed (seed 2); seed 2: metarl: " in shown.splitlines()[-1]
    assert "seed2 is not empty" in shown.splitlines()[-1]
    assert len(RunDirectory(out / "seed1").read_metrics()) == 1


def test_the_out_of_a_file_of_settings_is_the_folder_of_the_seeds(tmp_path: Path) -> None:
    settings = tmp_path / "settings.yaml"
    settings.write_text(f"learner: maml-trpo\nfamily: bandit\nrun: {{out: {tmp_path / 'runs'}}}")
    assert main(["train", "--config", str(settings), *SMALL, "--iterations", "1", "--seeds", "1,2"]) == 0
    assert [len(RunDirectory(tmp_path / "runs" / f"seed{seed}").read_metrics()) for seed in (1, 2)] == [1, 1]


def test_seeds_do_not_go_on_when_the_command_has_ended_with_an_error(tmp_path: Path) -> None:
    ended = tmp_path / "ended"
    code = f"import signal, time; signal.signal(signal.SIGUSR1, lambda *_: open({str(ended)!r}, 'w') and exit(0)); "

    def progress() -> tuple[int, int]:
        if (tmp_path / "started").exists():
            raise InputError("metrics.csv is not what the run wrote")
        return 0, 1

    words = [sys.executable, "-c", f"{code}open({str(tmp_path / 'started')!r}, 'w'); time.sleep(60)"]
    job = Job("seed 1", lambda device: words, tmp_path / "log", progress)
    with pytest.raises(InputError, match="is not what the run wrote"):
        run_jobs([job], ["cpu"])
    assert job.process is not None
    assert job.process.wait(30) == 0
    assert ended.exists()


def when_it_has(iterations: int, out: Path, process: Child) -> list[int]:
    """Wait until a run has so many iterations; return the numbers of its processes."""
    while len(RunDirectory(out).read_metrics()) < iterations:
        assert process.running, process.ended()
        time.sleep(0.05)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [int(child) for child in children if "spawn_main" in Path(f"/proc/{child}/cmdline").read_text()]


def test_a_killed_process_is_started_again_or_ends_the_run_in_one_line(tmp_path: Path) -> None:
    # One run, killed twice, and started again once.
    out = tmp_path / "run"
    words = [*WORDS, "--iterations", "60", "--checkpoint-every", "5", "--out", str(out)]
    process = Child(main, [*words, "--devices", "cpu*2", "--max-restarts", "1"], folder=tmp_path)
    os.kill((before := when_it_has(6, out, process))[0], signal.SIGKILL)
    while set(again := when_it_has(7, out, process)) & set(before) or len(again) < 2:
        time.sleep(0.05)
    os.kill(when_it_has(12, out, process)[1], signal.SIGKILL)
    ended = process.ended()
    assert ended.returncode == 1
    assert len(ended.stderr.splitlines()) == 1
    assert "process 1 of 2" in ended.stderr
    assert "was killed by SIGKILL" in ended.stderr
    assert main([*words, "--resume-if-there"]) == 0
    assert len(numbers(out)) == 60


def test_a_stop_while_processes_are_starting_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*arguments: Any) -> Any:
        signal.raise_signal(signal.SIGTERM)
        raise ChildFailedError("work", {0: ProcessFailure(0, 1, -signal.SIGUSR1, "none")})

    monkeypatch.setattr(launch, "elastic_launch", lambda *arguments: killed)
    with pytest.raises(RunStopped, match="again with --resume-if-there to continue") as stopped:
        launch.launch("train", [], ["cpu", "cpu"], 0)
    assert stopped.value.exit_code == 128 + signal.SIGTERM
    with pytest.raises(RunStopped, match="again to continue"):
        launch.launch("train", ["--resume", "run"], ["cpu", "cpu"], 0)


def test_processes_started_again_after_a_stop_do_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def started_again(*arguments: Any) -> Any:
        signal.raise_signal(signal.SIGTERM)
        return {0: launch.work(*arguments)}

    monkeypatch.setattr(launch, "elastic_launch", lambda *arguments: started_again)
    with pytest.raises(launch.LaunchError, match="again with --resume-if-there to continue") as stopped:
        launch.launch("train", [], ["cpu", "cpu"], 1)
    assert stopped.value.exit_code == 128 + signal.SIGTERM


def test_seeds_are_separated_by_commas(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*WORDS, "--seeds", "1", "2", "3"]) == 2
    assert "--seeds takes integers separated by commas, as in --seeds 1,2,3" in capsys.readouterr().err


def test_a_job_that_was_asked_to_stop_has_not_failed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    started = tmp_path / "started"
    code = f"open({str(started)!r}, 'w'); time.sleep(60)"
    code = f"import signal, sys, time; signal.signal(signal.SIGUSR1, lambda *_: sys.exit(138)); {code}"

    def progress() -> tuple[int, int]:
        if started.exists():
            started.unlink()
            os.kill(os.getpid(), signal.SIGTERM)
        return 0, 1

    job = Job("seed 1", lambda device: [sys.executable, "-c", code], tmp_path / "log", progress)
    with pytest.raises(RunStopped):
        run_jobs([job], ["cpu"])
    assert "seed 1: stopped" in capsys.readouterr().err
