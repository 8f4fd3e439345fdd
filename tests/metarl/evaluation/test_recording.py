import math
from ctypes.util import find_library
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tensordict import TensorDict

from metarl.agents.baselines.random_policy import RandomConfig, RandomPolicy
from metarl.envs.simulation import rendering
from metarl.errors import InputError
from metarl.evaluation.recording import Recording, Take, record, record_run, task_text
from metarl.families.family import make_family
from metarl.families.views import InformedFamily
from metarl.learning.learner import Learner
from metarl.sampling.sampler import Sampler
from metarl.seeding import derive_seed, generator
from tests.fakes import EchoFamily, echo_tasks
from tests.runs import small

needs_opengl = pytest.mark.skipif(
    not any(find_library(name) for name in rendering.OFFSCREEN), reason="needs EGL or OSMesa; this machine has neither"
)


def recorded(name: str, horizon: int = 6, **arguments: Any) -> Recording:
    """Record an untrained learner in a task of a family."""
    config = small(family=name, horizon=horizon)
    task = config.split().held_out_tasks("test", 1)
    return record(config.make_learner(), config.make_family(), task, **{"episodes": 3, **arguments})


def plain_take(length: int, colour: int = 0, label: str = "before adaptation") -> Take:
    """Return a take of ``length`` steps, each picture a bit lighter than the one before, each step worth -1."""
    frames = np.stack([np.full((20, 120, 3), colour + step, dtype=np.uint8) for step in range(length + 1)])
    return Take(label, frames, -np.arange(length + 1.0))


@pytest.mark.parametrize("name", ["gridnavi", "navigation-2d", "bandit", "cartpole-params"])
def test_there_is_an_episode_before_adaptation_and_one_after_each_step(name: str) -> None:
    recording = recorded(name, horizon=1 if name == "bandit" else 6, steps=2)
    labels = [take.label for take in recording.takes]
    assert labels == ["before adaptation", "after adaptation step 1", "after adaptation step 2"]
    for take in recording.takes:
        assert take.frames.dtype == np.uint8
        assert take.frames.shape[3] == 3
        assert len(take.frames) == len(take.returns) > 1
        assert take.returns[0] == 0


@pytest.mark.parametrize("name", ["gridnavi", "navigation-2d", "key-and-door", "cartpole-params"])
def test_all_episodes_begin_alike(name: str) -> None:
    before, after = recorded(name).takes
    assert np.array_equal(before.frames[0], after.frames[0])


def test_adaptation_is_what_makes_the_difference() -> None:
    changed = recorded("navigation-2d", horizon=10).takes
    assert not np.array_equal(changed[0].frames[-1], changed[1].frames[-1])
    family, task = make_family("navigation-2d", horizon=10), drawn_task("navigation-2d")
    learner = RandomPolicy(family, RandomConfig(), 0, torch.device("cpu"))  # learns nothing
    before, after = record(learner, family, task, episodes=2).takes
    assert np.array_equal(before.frames, after.frames)
    assert np.array_equal(before.returns, after.returns)


def drawn_task(name: str) -> TensorDict:
    """Draw a task of a family."""
    return make_family(name).sample_tasks(1, generator("test"))


def test_the_seed_decides() -> None:
    one, same, other = (recorded("navigation-2d", seed=seed).frames() for seed in (1, 1, 2))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


class Watched(Learner):
    """Passes everything on to a learner, and keeps what it adapted to."""

    name = "watched"
    config_class = RandomConfig
    inner_steps = 1

    def __init__(self, inner: Learner) -> None:
        self.inner = inner
        self.rollouts: list[Any] = []

    def begin(self, num_tasks: int) -> Any:
        assert num_tasks == 1
        return self.inner.begin(num_tasks)

    def open(self, *arguments: Any) -> Any:
        return self.inner.open(*arguments)

    def action_distribution(self, *arguments: Any) -> Any:
        return self.inner.action_distribution(*arguments)

    def adapt(self, state: Any, rollout: Any) -> Any:
        self.rollouts.append(rollout)
        return self.inner.adapt(state, rollout)

    update = state_dict = load_state_dict = None  # type: ignore[assignment]


class Remembering(Watched):
    """Says that its episodes side by side are trials of their own."""

    pools_episodes = False


def test_it_adapts_as_the_evaluation_does() -> None:
    config = small(family="navigation-2d", horizon=6)
    learner, family, task = Watched(config.make_learner()), config.make_family(), drawn_task("navigation-2d")
    recording = record(learner, family, task, steps=2, episodes=3)
    assert [rollout.rewards.shape[:2] for rollout in learner.rollouts] == [(1, 3), (1, 3)]
    # Each episode that is shown is one that the sampler collects in the state which the adaptation led to.
    state, sampler = learner.inner.begin(1), Sampler(family)
    for take, rollout in zip(recording.takes, [*learner.rollouts, None], strict=True):
        shown = sampler.collect(learner.inner, state, task, 1, derive_seed(0, "recorded episode"))
        assert take.returns[-1] == pytest.approx(shown.episode_returns().item(), abs=1e-5)
        state = state if rollout is None else learner.inner.adapt(state, rollout)


def test_recording_leaves_the_learner_alone() -> None:
    config = small(family="gridnavi")
    learner = config.make_learner()
    before = {key: value.clone() for key, value in learner.state_dict()["params"].items()}
    record(learner, config.make_family(), config.split().held_out_tasks("test", 1), episodes=2)
    after = learner.state_dict()["params"]
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_a_take_ends_with_its_episode() -> None:
    family = EchoFamily(horizon=8)
    learner = RandomPolicy(family, RandomConfig(), 0, torch.device("cpu"))
    (take,) = record(learner, family, echo_tasks([2.5], [3]), steps=0, episodes=1).takes
    assert take.returns.tolist() == [0, 2.5, 5, 7.5]
    assert len(take.frames) == 4


def test_an_episode_that_is_over_stays_as_it_was() -> None:
    frames = Recording("family: task", [plain_take(2, 0), plain_take(5, 100)], None).frames()
    assert len(frames) == 6
    assert [frame[-1, 0, 0] for frame in frames] == [0, 1, 2, 2, 2, 2]
    assert [frame[-1, -1, 0] for frame in frames] == [100, 101, 102, 103, 104, 105]
    left, right = frames[..., :120, :], frames[..., 128:, :]
    assert np.array_equal(left[3], left[5])  # its caption too
    assert not np.array_equal(right[3][:-20], right[5][:-20])


def test_captions_tell_task_step_and_return(monkeypatch: pytest.MonkeyPatch) -> None:
    captions: list[str] = []

    def write(frame: np.ndarray, lines: list[str]) -> np.ndarray:
        captions.extend(lines)
        return frame

    monkeypatch.setattr("metarl.evaluation.recording.captioned", write)
    Recording("echo: identity=3", [plain_take(1), plain_take(2, label="after adaptation step 1")], None).frames()
    assert "echo: identity=3" in captions
    assert captions[-3:] == [
        "after adaptation step 1",
        "return -2.00 at step 2",
        "echo: identity=3",
    ]
    assert "return -1.00 at step 1" in captions


def test_a_long_title_takes_several_lines() -> None:
    takes = [plain_take(1)]
    short, long = (Recording(title, takes, None).frames().shape for title in ("short", "word " * 20))
    assert long[1] > short[1]
    assert long[2] == short[2]


def test_many_episodes_take_several_rows() -> None:
    four, five = (Recording("title", [plain_take(1)] * count, None).frames() for count in (4, 5))
    assert five.shape[2] == four.shape[2]
    panel = plain_take(1).panel(0).shape[0]
    assert five.shape[1] - four.shape[1] == panel
    assert (five[:, -panel:, 140:] == 255).all()


@pytest.mark.parametrize(
    ("steps", "dt", "fps", "frames"),
    [
        (100, 0.05, 20, 101),
        (100, 0.02, 50, 101),
        (100, 0.008, 125 / 3, 35),  # every third step, and the last
        (99, 0.008, 125 / 3, 34),
        (4, None, 4, 5),
        (50, None, 10, 51),
        (200, None, 20, 201),
    ],
)
def test_time_is_the_worlds_or_else_sensible(steps: int, dt: float | None, fps: float, frames: int) -> None:
    long = Take("", np.zeros((steps + 1, 2, 30, 3), np.uint8), np.zeros(steps + 1))
    recording = Recording("title", [long], dt)
    assert recording.fps == pytest.approx(fps)
    assert len(recording.frames()) == frames


def test_a_family_without_physics_has_no_time() -> None:
    assert recorded("navigation-2d", steps=0).seconds_per_step is None


@needs_opengl
@pytest.mark.parametrize("informed", [False, True])
def test_a_half_cheetah_runs_in_real_time(informed: bool) -> None:
    plain = make_family("half-cheetah-vel", horizon=4)
    family = InformedFamily(plain) if informed else plain
    learner = RandomPolicy(family, RandomConfig(), 0, torch.device("cpu"))
    recording = record(learner, family, plain.make_task({"velocity": 1.7}), episodes=1)
    frames = recording.frames()
    assert recording.fps == pytest.approx(20)
    assert recording.title == "half-cheetah-vel: velocity=1.7"
    assert frames.shape[0] == 5
    assert np.array_equal(recording.takes[0].frames[0], recording.takes[1].frames[0])
    assert (recording.takes[0].frames[0] != recording.takes[0].frames[-1]).any()


def test_it_is_saved(tmp_path: Path) -> None:
    recording = recorded("gridnavi", horizon=3)
    recording.save(tmp_path / "grid.gif")
    with Image.open(tmp_path / "grid.gif") as file:
        assert file.n_frames == len(recording.frames()) == 4  # type: ignore[attr-defined]


def test_a_learner_with_trials_continues_one_of_them() -> None:
    config = small(family="gridnavi", horizon=3, episodes_per_task=5)
    task = config.split().held_out_tasks("test", 1)
    pooling, remembering = Watched(config.make_learner()), Remembering(config.make_learner())
    for learner, episodes in ((pooling, 5), (remembering, 1)):
        record_run(config, learner, task, steps=2)
        assert [rollout.rewards.shape[1] for rollout in learner.rollouts] == [episodes] * 2
    with pytest.raises(InputError, match="a single episode at each step, not 2; leave"):
        record_run(config, remembering, task, episodes=2)


@pytest.mark.parametrize("arguments", [{"steps": -1}, {"episodes": 0}])
def test_counts_that_make_no_sense_are_refused(arguments: dict[str, int]) -> None:
    with pytest.raises(InputError, match="steps >= 0 and episodes >= 1"):
        recorded("gridnavi", **arguments)


def test_a_task_in_words_is_what_the_command_takes() -> None:
    task = TensorDict({"goal": torch.tensor([0.3, -0.2]), "speed": torch.tensor(math.pi)})
    assert task_text(task) == "goal=0.3,-0.2 speed=3.142"
    assert task_text(TensorDict({"body": torch.zeros(3, 4)})) == "body=(12 numbers)"
