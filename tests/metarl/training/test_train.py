import dataclasses
import os
import resource
import signal
import time
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from metarl.agents.gradient.maml_trpo import MamlTrpo, MamlTrpoConfig
from metarl.agents.in_context.rl2 import Rl2Config
from metarl.envs.basic.navigation import Navigation2D
from metarl.errors import InputError, RunError
from metarl.experiments.commands.main import main
from metarl.rollouts.rollout import Rollout
from metarl.run.directory import RunDirectory
from metarl.sampling.sampler import Sampler
from metarl.sampling.session import Session
from metarl.training.loop_tools import SIGNALS, StopRequest
from metarl.training.train import resume, train
from tests.forked import Child
from tests.runs import checkpoint_vector, contents, numbers, small, tiny, train_words

Collect = Callable[..., Rollout]


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run of 4 iterations in one go, which these tests only read."""
    path = tmp_path_factory.mktemp("training") / "run"
    train(small(path))
    return path


def assert_same_run(one: Path, other: Path) -> None:
    assert numbers(one) == numbers(other)
    assert torch.equal(checkpoint_vector(one), checkpoint_vector(other))


def spy_on_rounds(monkeypatch: pytest.MonkeyPatch, spy: Callable[[int, Any, Rollout], Rollout]) -> None:
    """Let ``spy`` see (and replace) every rollout: it gets their number so far, the state and the rollout."""
    run, calls = Sampler.run, [0]

    def wrapped(self: Sampler, session: Session, seed: int) -> Rollout:
        state = session.state
        rollout = spy(calls[0], state, run(self, session, seed))
        calls[0] += 1
        return rollout

    monkeypatch.setattr(Sampler, "run", wrapped)


def test_a_run_leaves_its_files(straight: Path) -> None:
    expected = ["adaptation_curve.png", "checkpoints", "config.json", "finished.json", "metrics.csv"]
    assert sorted(path.name for path in straight.iterdir()) == expected


def test_metrics_are_one_row_an_iteration(straight: Path) -> None:
    assert [row["iteration"] for row in numbers(straight)] == [0, 1, 2, 3]


def test_metrics_have_the_promised_columns(straight: Path) -> None:
    promised = {"iteration", "env_steps", "return_before", "return_after", "gain"}
    promised |= {"time_sampling", "time_adaptation", "time_update"}
    assert promised <= set(RunDirectory(straight).read_metrics()[0])


def test_env_steps_add_up(straight: Path) -> None:
    # 2 tasks, 3 episodes of 1 step, before and after adaptation: 12 an iteration.
    assert [row["env_steps"] for row in numbers(straight)] == [12, 24, 36, 48]


def test_the_gain_is_the_difference_of_the_returns(straight: Path) -> None:
    for row in numbers(straight):
        assert float(row["gain"]) == float(row["return_after"]) - float(row["return_before"])


def test_the_parts_take_no_longer_than_the_iteration(straight: Path) -> None:
    for row in RunDirectory(straight).read_metrics():
        parts = sum(float(row[f"time_{name}"]) for name in ("sampling", "adaptation", "update"))
        assert 0 < parts <= float(row["time_iteration"])


def test_the_checkpoint_says_how_far_it_came(straight: Path) -> None:
    content = RunDirectory(straight).load_checkpoint()
    assert (content["iteration"], content["env_steps"]) == (4, 48)


def test_the_config_holds_the_hash_of_the_split(straight: Path) -> None:
    assert RunDirectory(straight).read_config()["split_hash"] == small().split().fingerprint()


@pytest.mark.usefixtures("real_curves")
def test_the_curve_is_drawn(tmp_path: Path) -> None:
    assert Image.open(train(small(tmp_path / "run", iterations=1)).curve).width > 100


def test_by_default_a_run_is_named_after_what_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert train(small(iterations=1, seed=3)).path == Path("runs/maml-trpo-bandit-seed3")


def test_the_same_run_twice_gives_the_same_numbers(straight: Path, tmp_path: Path) -> None:
    train(small(tmp_path / "run"))
    assert_same_run(tmp_path / "run", straight)


def test_another_seed_gives_other_numbers(straight: Path, tmp_path: Path) -> None:
    train(small(tmp_path / "run", seed=2))
    assert numbers(tmp_path / "run") != numbers(straight)


def test_a_global_seed_does_not_matter(straight: Path, tmp_path: Path) -> None:
    torch.manual_seed(123)
    train(small(tmp_path / "run"))
    assert_same_run(tmp_path / "run", straight)


def test_training_leaves_the_users_random_streams_alone(tmp_path: Path) -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    train(small(tmp_path / "run", iterations=1))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_resumed_run_ends_at_the_same_numbers(straight: Path, tmp_path: Path) -> None:
    train(small(tmp_path / "run", iterations=2))
    resume(tmp_path / "run", iterations=4)
    assert_same_run(tmp_path / "run", straight)


@pytest.mark.parametrize("family", ["navigation-2d", "half-cheetah-vel"])
def test_so_it_does_on_other_families(family: str, tmp_path: Path) -> None:
    train(small(tmp_path / "straight", family, iterations=3, horizon=5))
    train(small(tmp_path / "resumed", family, iterations=1, horizon=5))
    resume(tmp_path / "resumed", iterations=3)
    assert_same_run(tmp_path / "straight", tmp_path / "resumed")


def test_a_resumed_run_knows_its_new_total(tmp_path: Path) -> None:
    train(small(tmp_path / "run", iterations=1))
    resume(tmp_path / "run", iterations=2)
    assert RunDirectory(tmp_path / "run").read_config()["run"]["iterations"] == 2


def test_a_resumed_run_keeps_its_tracking_id(tmp_path: Path) -> None:
    train(small(tmp_path / "run", iterations=1))
    before = RunDirectory(tmp_path / "run").read_config()["tracking_id"]
    resume(tmp_path / "run", iterations=2)
    assert RunDirectory(tmp_path / "run").read_config()["tracking_id"] == before


@pytest.mark.parametrize("iterations", [None, 1, 4])
def test_a_run_that_is_done_is_not_resumed(straight: Path, iterations: int | None) -> None:
    before = contents(straight)
    with pytest.raises(InputError, match="has done 4 iterations already; to continue, pass a larger --iterations"):
        resume(straight, iterations)
    assert contents(straight) == before


def test_resuming_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no run directory"):
        resume(tmp_path / "nowhere")


def test_an_occupied_out_is_left_as_it_was(straight: Path) -> None:
    before = contents(straight)
    with pytest.raises(InputError, match="is not empty"):
        train(small(straight))
    assert contents(straight) == before


def test_a_learner_that_cannot_be_made_leaves_no_folder(tmp_path: Path) -> None:
    settings = MamlTrpoConfig(policy="gaussian")
    with pytest.raises(InputError, match="a gaussian policy cannot act"):
        train(small(tmp_path / "run", settings=settings))
    assert not (tmp_path / "run").exists()


def test_episodes_that_fit_in_no_memory_leave_no_folder(tmp_path: Path) -> None:
    config = dataclasses.replace(tiny("rl2", tmp_path / "run"), settings=Rl2Config(episodes_per_trial=10**9))
    with pytest.raises(InputError, match=r"the episodes of one iteration need .* GiB, and cpu has .*use a smaller"):
        train(config)
    assert not (tmp_path / "run").exists()


def test_an_engine_that_does_not_run_on_the_device_leaves_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Navigation2D, device: torch.device) -> None:
        raise InputError(f"this engine does not run on {device}")

    monkeypatch.setattr(Navigation2D, "check_device", refuse)
    with pytest.raises(InputError, match="does not run on cpu"):
        train(small(tmp_path / "run", "navigation-2d"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("inner_steps", [1, 2])
def test_every_inner_step_has_fresh_rollouts_of_the_parameters_adapted_so_far(
    inner_steps: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    states: list[Any] = []
    rollouts: list[Rollout] = []

    def spy(number: int, state: Any, rollout: Rollout) -> Rollout:
        states.append(state)
        rollouts.append(rollout)
        return rollout

    updated: list[list[Rollout]] = []
    update = MamlTrpo.update
    monkeypatch.setattr(MamlTrpo, "update", lambda self, each: updated.append(list(each)) or update(self, each))
    spy_on_rounds(monkeypatch, spy)
    settings = MamlTrpoConfig(hidden_sizes=(8,), inner_steps=inner_steps)
    config = small(tmp_path / "run", "navigation-2d", horizon=5, iterations=1, settings=settings)
    train(config)
    # Training came first; the rollouts after it are those of validation.
    trained = rollouts[: inner_steps + 1]
    assert [[id(rollout) for rollout in each] for each in updated] == [[id(rollout) for rollout in trained]]
    # Fresh: each has noise of its own, whatever the parameters made of it.
    for one, other in combinations(map(noise, trained), 2):
        assert (one - other).abs().max() > 0.1
    # The parameters that acted are those that the rollouts before lead to.
    learner = config.make_learner()
    state = learner.begin(2)
    for step, rollout in enumerate(trained):
        assert all(torch.equal(states[step].params[key], state.params[key]) for key in state.params.keys())
        state = learner.adapt(state, rollout)


def noise(rollout: Rollout) -> Tensor:
    """Return what a Gaussian policy drew, in standard deviations from its mean."""
    mean, log_std = rollout.distribution.tensors()
    return (rollout.actions - mean) * torch.exp(-log_std)


def poison(monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """Put a NaN into the rewards of rollout number ``at``, where the sampler's own check does not see it."""

    def spy(number: int, state: Any, rollout: Rollout) -> Rollout:
        rewards = rollout.rewards.clone()
        if number == at:
            rewards[0, 0, 0] = torch.nan
        return dataclasses.replace(rollout, rewards=rewards)

    spy_on_rounds(monkeypatch, spy)


# Two rollouts an iteration: number 5 is the second one of iteration 2.
def test_a_nan_in_an_update_names_the_iteration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    poison(monkeypatch, at=5)
    with pytest.raises(
        RunError, match=r"iteration 2: the update is not finite.* the checkpoint of iteration 2; evaluate"
    ):
        train(small(tmp_path / "run"))


def test_a_nan_in_an_update_leaves_a_checkpoint_of_the_iterations_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison(monkeypatch, at=5)
    with pytest.raises(RunError):
        train(small(tmp_path / "run"))
    assert RunDirectory(tmp_path / "run").load_checkpoint()["iteration"] == 2
    assert len(numbers(tmp_path / "run")) == 2


def test_after_a_nan_the_run_can_be_resumed(straight: Path, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        poison(patch, at=5)
        with pytest.raises(RunError):
            train(small(tmp_path / "run"))
    resume(tmp_path / "run")
    assert_same_run(tmp_path / "run", straight)


def test_a_nan_in_the_first_iteration_can_be_resumed_too(straight: Path, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        poison(patch, at=0)
        with pytest.raises(RunError, match="iteration 0"):
            train(small(tmp_path / "run"))
    resume(tmp_path / "run")
    assert_same_run(tmp_path / "run", straight)


def test_a_nan_of_an_environment_names_where_it_began(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    transition = Navigation2D.transition

    def broken(self: Navigation2D, state: Any, *rest: Any) -> Any:
        after, result = transition(self, state, *rest)
        return after, result._replace(rewards=result.rewards / 0 * 0)

    monkeypatch.setattr(Navigation2D, "transition", broken)
    with pytest.raises(RunError, match=r"iteration 0: .*navigation-2d, task 0 \(goal=.*episode 0, step 0, seed"):
        train(small(tmp_path / "run", "navigation-2d", horizon=5))


def test_checkpoints_are_written_on_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved: list[int] = []
    save = RunDirectory.save_checkpoint

    def spy(self: RunDirectory, content: dict[str, Any]) -> Path:
        saved.append(content["iteration"])
        return save(self, content)

    monkeypatch.setattr(RunDirectory, "save_checkpoint", spy)
    train(small(tmp_path / "run", iterations=5, checkpoint_every=2))
    assert saved == [0, 2, 4, 5]


def test_a_request_to_stop_ends_the_run_after_the_iteration_in_hand(straight: Path, tmp_path: Path) -> None:
    update = MamlTrpo.update

    def interrupted(self: MamlTrpo, rollouts: Any) -> dict[str, float]:
        os.kill(os.getpid(), signal.SIGINT)
        return update(self, rollouts)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MamlTrpo, "update", interrupted)
        train(small(tmp_path / "run"))
    assert RunDirectory(tmp_path / "run").load_checkpoint()["iteration"] == 1
    resume(tmp_path / "run")
    assert_same_run(tmp_path / "run", straight)


def test_after_a_run_signals_do_what_they_did(tmp_path: Path) -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    train(small(tmp_path / "run", iterations=1))
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_a_second_signal_acts_as_it_did_before_training() -> None:
    came: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: came.append(number))
    try:
        with StopRequest() as stop:
            os.kill(os.getpid(), signal.SIGTERM)
            assert stop.signal == signal.SIGTERM
            assert not came
            os.kill(os.getpid(), signal.SIGTERM)
            assert came == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_repeated_warning_of_slurm_is_no_second_signal() -> None:
    calls: list[int] = []
    with StopRequest(then=lambda: calls.append(0)) as stop:
        signal.raise_signal(signal.SIGUSR1)
        signal.raise_signal(signal.SIGUSR1)
        assert stop.signal == signal.SIGUSR1
    assert len(calls) == 2


def start_and_stop(out: Path, number: signal.Signals) -> Child:
    """Start a long run in a process of its own, and send it a signal once it has made a few iterations."""
    words = ["navigation-2d", "--horizon", "5", "--iterations", "1000000", "--checkpoint-every", "1000000"]
    child = Child(main, train_words(*words, out=out), folder=out.parent)
    deadline = time.monotonic() + 60
    while len(RunDirectory(out).read_metrics()) < 3:
        assert child.running, child.ended()
        assert time.monotonic() < deadline, "the run does not get going"
        time.sleep(0.02)
    os.kill(child.pid, number)
    return child


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_stops_a_run_that_can_be_resumed(number: signal.Signals, tmp_path: Path) -> None:
    child = start_and_stop(tmp_path / "run", number)
    ended = child.ended()
    done = RunDirectory(tmp_path / "run").load_checkpoint()["iteration"]
    told = f"continue with metarl train --resume {tmp_path / 'run'}"
    line = f"metarl: stopped after {done} of 1000000 iterations; {told}\n"
    assert (ended.returncode, ended.stdout, ended.stderr) == (128 + number, "", line)
    resume(tmp_path / "run", iterations=done + 2)
    train(small(tmp_path / "straight", "navigation-2d", horizon=5, iterations=done + 2))
    assert_same_run(tmp_path / "run", tmp_path / "straight")


def train_and_die(words: list[str]) -> int:
    update, calls = MamlTrpo.update, [0]

    def killed(self: MamlTrpo, rollouts: Any) -> dict[str, float]:
        calls[0] += 1
        if calls[0] == 4:
            os.kill(os.getpid(), signal.SIGKILL)
        return update(self, rollouts)

    MamlTrpo.update = killed  # type: ignore[method-assign]
    return main(words)


def test_a_run_that_was_killed_between_checkpoints_can_be_resumed(straight: Path, tmp_path: Path) -> None:
    words = train_words("bandit", "--iterations", 4, "--checkpoint-every", 2, out=tmp_path / "run")
    assert Child(train_and_die, words, folder=tmp_path).ended().returncode == -signal.SIGKILL
    # Killed in iteration 3: three rows are written, and the checkpoint knows of two.
    assert len(numbers(tmp_path / "run")) == 3
    assert RunDirectory(tmp_path / "run").load_checkpoint()["iteration"] == 2
    resume(tmp_path / "run")
    assert_same_run(tmp_path / "run", straight)


def train_on_a_full_disk(limit: int, words: list[str]) -> int:
    # A file may grow to so many bytes and no further.
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    return main(words)


@pytest.mark.parametrize(
    ("limit", "left"),
    [
        pytest.param(500, [], id="at the config"),
        pytest.param(2500, ["checkpoints", "config.json"], id="at the checkpoint"),
        pytest.param(30_000, ["checkpoints", "config.json", "metrics.csv"], id="at the picture"),
    ],
)
def test_a_full_disk_ends_a_run_with_one_line_and_no_half_file(limit: int, left: list[str], tmp_path: Path) -> None:
    words = [*train_words("bandit", "--iterations", 2, out=tmp_path / "run"), "--hidden-sizes", "64", "64"]
    ended = Child(train_on_a_full_disk, limit, words, folder=tmp_path).ended()
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith("metarl: ")
    assert ended.stderr.count("\n") == 1
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == left


def test_what_a_full_disk_left_can_be_resumed(straight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    append, rows = RunDirectory.append_metrics, [0]

    def full(self: RunDirectory, row: dict[str, float]) -> None:
        rows[0] += 1
        if rows[0] == 4:
            with open(self.metrics, "a") as stream:
                stream.write("3,4")
            raise OSError(28, "No space left on device")
        append(self, row)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunDirectory, "append_metrics", full)
        line = r"iteration 4: cannot write .*: No space left .* of iteration 3: .* metarl train --resume"
        with pytest.raises(RunError, match=line):
            train(small(tmp_path / "run", checkpoint_every=1))
    resume(tmp_path / "run")
    assert_same_run(tmp_path / "run", straight)


def test_training_in_a_thread_works(straight: Path, tmp_path: Path) -> None:
    # Signals can only be handled in the main thread; elsewhere a run goes without.
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor() as pool:
        pool.submit(train, small(tmp_path / "run")).result()
    assert_same_run(tmp_path / "run", straight)


def test_progress_is_quiet_where_there_is_no_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(small(tmp_path / "run", iterations=2))
    assert capsys.readouterr() == ("", "")


def test_on_a_terminal_progress_shows_returns_speed_and_time_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "150")
    train(small(tmp_path / "run", iterations=3))
    # tqdm's own fields are elapsed<remaining.
    assert "3/3" in (shown := capsys.readouterr().err)
    assert "env steps/s" in shown
    assert "return " in shown
    assert "<" in shown
