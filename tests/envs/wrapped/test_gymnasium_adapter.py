import dataclasses
import gc
import json
import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import active_children
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from tensordict import TensorDict

from metarl.agents.gradient.maml_trpo import MamlTrpo, MamlTrpoConfig
from metarl.envs.wrapped.cartpole import CartPoleParams
from metarl.envs.wrapped.gymnasium_adapter import GymnasiumFamily
from metarl.envs.wrapped.gymnasium_worlds import VectorDynamics
from metarl.envs.wrapped.world import Environment, Task
from metarl.errors import InputError, RunError
from metarl.evaluation.evaluate import adaptation_curve
from metarl.experiments.commands.main import main
from metarl.families.family import describe
from metarl.families.pictures import text_picture
from metarl.families.splits import PARTS, TaskSplit
from metarl.sampling.sampler import Sampler
from metarl.worlds.numpy_env import TaskEnv
from metarl.worlds.vector_env import TaskVectorEnv

ONE = spaces.Box(-1.0, 1.0, (1,), np.float32)


class Counter(gymnasium.Env[Any, Any]):
    """Counts its steps; everything that can be unusual about an environment is an argument or an attribute."""

    made = 0
    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012

    def __init__(self, size: int = 1, render_mode: str | None = None) -> None:
        type(self).made += 1
        self.size, self.slope, self.trouble, self.render_mode = size, 1.0, 0, render_mode
        self.count = 0
        self.action_space = ONE
        self.observation_space: Any = spaces.Box(-np.inf, np.inf, (2,), np.float64)

    def observation(self) -> Any:
        return np.array([self.size, self.count * self.slope])

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.count = 0
        return self.observation(), {"ignored": 1.0}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        if self.trouble == 1 and self.count == 2:
            raise ValueError("the wheels\ncame off")
        self.count += 1
        reward = np.nan if self.trouble == 2 and self.count == 2 else self.np_random.random()
        info = {"success": self.count == 3, "height": np.float32(self.count), "text": "no number"}
        return self.observation(), reward, self.count == 4, self.trouble == 3 and self.count == 3, info

    def render(self) -> Any:
        return np.full((2, 2, 3), self.count, np.uint8)


class Wide(Counter):
    """As wide as its size."""

    def __init__(self, size: int = 1) -> None:
        super().__init__(size)
        self.observation_space = spaces.Box(-np.inf, np.inf, (size,), np.float64)

    def observation(self) -> Any:
        return np.zeros(self.size)


class Seen(Counter):
    """Observes a space of its own."""

    seen: tuple[spaces.Space[Any], Any]

    def __init__(self) -> None:
        super().__init__()
        self.observation_space = self.seen[0]

    def observation(self) -> Any:
        return self.seen[1]


def counters(maker: Any = Counter, horizon: int = 6, **changes: Any) -> GymnasiumFamily:
    space = spaces.Dict({"size": spaces.Discrete(3, start=1), "slope": spaces.Box(0.0, 2.0, (), np.float64)})
    return GymnasiumFamily(maker, **{"task_space": space, "horizon": horizon, **changes})


def troubled(trouble: int, **changes: Any) -> GymnasiumFamily:
    return counters(task_space=spaces.Dict({"trouble": spaces.Discrete(1, start=trouble)}), **changes)


def sizes(*values: int, slope: float = 1.0) -> TensorDict:
    count = len(values)
    return TensorDict({"size": torch.tensor(values), "slope": torch.full((count,), slope).double()}, [count])


def started(family: GymnasiumFamily, tasks: TensorDict | None = None, worlds: int = 3) -> TaskVectorEnv:
    env = TaskVectorEnv(family, worlds if tasks is None else len(tasks), autoreset_mode=AutoresetMode.DISABLED)
    if tasks is not None:
        env.set_tasks(tasks)
    env.reset(seed=0)
    return env


def vector(env: TaskVectorEnv) -> Any:
    dynamics = env._dynamics
    assert isinstance(dynamics, VectorDynamics)
    return dynamics._worlds


def inner(env: TaskVectorEnv, world: int = 0) -> Any:
    return vector(env).envs[world]._env.unwrapped


def idle(env: TaskVectorEnv) -> torch.Tensor:
    return torch.zeros(env.action_space.shape)


@pytest.fixture(autouse=True)
def no_process_is_left() -> Iterator[None]:
    yield
    if active_children():
        gc.collect()
    assert active_children() == []


# What the environment is


def test_cartpole_moves_as_gymnasiums_own_with_the_same_constants() -> None:
    tasks = TensorDict({"length": torch.tensor([0.3, 0.9]), "gravity": torch.tensor([14.0, 6.0])}, [2])
    ours = started(CartPoleParams(), tasks)
    for world in range(2):
        theirs: Any = gymnasium.make("CartPole-v1").unwrapped
        theirs.length, theirs.gravity = tasks["length"][world].item(), tasks["gravity"][world].item()
        theirs.polemass_length = theirs.masspole * theirs.length
        ours.reset(seed=7)
        observation, _ = theirs.reset(seed=inner(ours, world).np_random_seed)
        assert np.array_equal(ours._dynamics.observe()[world].numpy(), observation)
        stream, terminated = np.random.default_rng(0), False
        while not terminated:
            action = int(stream.integers(2))
            observation, reward, terminated, _, _ = theirs.step(action)
            seen, rewards, ends, _, _ = ours.step(torch.full((2,), action))
            assert np.array_equal(seen[world].numpy(), observation)
            assert (rewards[world].item(), ends[world].item()) == (reward, terminated)


def test_what_the_environment_derives_from_a_parameter_follows_it() -> None:
    cartpole = inner(started(CartPoleParams()))
    assert cartpole.polemass_length == cartpole.masspole * cartpole.length != 0.05


def test_constructor_arguments_recreate_the_environment_only_when_they_change() -> None:
    env = started(counters(), sizes(1, 2, slope=0.5))
    before = Counter.made
    env.reset(seed=1)
    assert Counter.made == before
    env.set_tasks(sizes(1, 3, slope=2.0))
    observations, _ = env.reset(seed=1)
    assert Counter.made == before + 1
    assert observations[:, 0].tolist() == [1, 3]
    assert env.step(idle(env))[0][:, 1].tolist() == [2, 2]


def test_time_limits_are_taken_off_and_become_the_horizon() -> None:
    space = spaces.Dict({"gravity": spaces.Box(1.0, 2.0, (), np.float32)})
    assert GymnasiumFamily("CartPole-v1", space).horizon == 500
    longer = GymnasiumFamily("Pendulum-v1", spaces.Dict({"m": spaces.Box(1.0, 2.0, (), np.float32)}), horizon=210)
    env = started(longer)  # Pendulum's own limit is 200 steps.
    assert [env.step(idle(env))[3].all().item() for _ in range(210)] == [False] * 209 + [True]


@pytest.mark.parametrize(
    ("space", "observation", "expected"),
    [
        (spaces.Discrete(3), 1, [0, 1, 0]),
        (
            spaces.Dict({"b": spaces.Box(0, 9, (2,), np.int64), "a": spaces.Discrete(2)}),
            {"a": 0, "b": [4, 5]},
            [1, 0, 4, 5],
        ),
        (spaces.Box(0, 255, (1, 2), np.uint8), np.array([[7, 255]], np.uint8), [[7, 255]]),
    ],
    ids=["discrete", "dict", "pixels"],
)
def test_observations_become_float32_boxes(space: Any, observation: Any, expected: Any) -> None:
    kind = type("Kind", (Seen,), {"seen": (space, observation)})
    family = counters(kind, task_space=spaces.Dict({"slope": spaces.Box(0.0, 1.0, (), np.float32)}))
    observations, _ = started(family).reset()
    assert observations.dtype == torch.float32
    assert observations[0].tolist() == expected
    assert family.observation_space.contains(observations[0].numpy())


def test_images_stay_uint8() -> None:
    picture = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    kind = type("Kind", (Seen,), {"seen": (spaces.Box(0, 255, (4, 4, 3), np.uint8), picture)})
    family = counters(kind, task_space=spaces.Dict({"slope": spaces.Box(0.0, 1.0, (), np.float32)}))
    observations, _ = started(family).reset()
    assert family.observation_space == spaces.Box(0, 255, (4, 4, 3), np.uint8)
    assert observations.dtype == torch.uint8
    assert observations[0].tolist() == picture.tolist()


class Acted(Counter):
    """Acts in a space of its own, and refuses what is not in it."""

    space: spaces.Space[Any]

    def __init__(self) -> None:
        super().__init__()
        self.action_space = self.space

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action), action
        return super().step(0)


@pytest.mark.parametrize("vectorization", ["sync", "async"])
@pytest.mark.parametrize(
    "space",
    [
        spaces.Discrete(3, start=5),
        spaces.MultiDiscrete([2, 3], start=[1, -1]),
        spaces.MultiBinary(3),
        spaces.Box(-2, 3, (2, 2), np.int64),
        spaces.Box(-2.0, 3.0, (), np.float64),
    ],
    ids=lambda space: type(space).__name__,
)
def test_every_kind_of_action_reaches_the_environment_as_an_element_of_its_space(
    space: spaces.Space[Any], vectorization: str
) -> None:
    kind = type("Kind", (Acted,), {"space": space})
    tasks = spaces.Dict({"slope": spaces.Box(0.0, 1.0, (), np.float32)})
    family = counters(kind, task_space=tasks, vectorization=vectorization)
    learner = MamlTrpo(family, MamlTrpoConfig(hidden_sizes=(8,)), 0, torch.device("cpu"))
    drawn = family.sample_tasks(2, torch.Generator().manual_seed(0))
    rollout = Sampler(family).collect(learner, learner.begin(2), drawn, 1, 0)
    assert rollout.env_steps == 2 * 4


def test_actions_that_no_policy_takes_are_refused() -> None:
    kind = type("Kind", (Acted,), {"space": spaces.Text(3)})
    with pytest.raises(InputError, match=r"no policy can act in Text.*; use a Box"):
        _ = counters(kind, task_space=spaces.Dict({"slope": spaces.Discrete(2)})).action_space


def test_numbers_of_the_info_are_kept() -> None:
    env = started(counters(), sizes(1, 1))
    info = [env.step(idle(env))[4] for _ in range(3)][-1]
    assert sorted(info) == ["height", "success"]
    assert info["success"].dtype == info["height"].dtype == torch.float32
    assert (info["success"].tolist(), info["height"].tolist()) == ([1, 1], [3, 3])


# Episodes


def test_a_world_that_ended_stays_as_it_is() -> None:
    env = started(counters(), sizes(1, 2))
    steps = [env.step(idle(env)) for _ in range(8)]  # Two steps beyond the horizon, and nobody is stepped there.
    assert [terminated.tolist() for _, _, terminated, _, _ in steps] == [[False] * 2] * 3 + [[True] * 2] * 5
    for observations, rewards, _, _, _ in steps[4:]:
        assert torch.equal(observations, steps[3][0])
        assert rewards.tolist() == [0, 0]
    assert inner(env).count == 4


def test_a_masked_reset_starts_episodes_only_there() -> None:
    env = started(counters(), sizes(1, 2, 3))
    env.step(idle(env))
    observations, _ = env.reset(options={"reset_mask": torch.tensor([False, True, False])})
    assert observations[:, 1].tolist() == [1, 0, 1]
    assert env.step(idle(env))[0][:, 1].tolist() == [2, 1, 2]
    observations, _ = env.reset(options={"reset_mask": torch.zeros(3, dtype=torch.bool)})
    assert observations[:, 1].tolist() == [2, 1, 2]


def test_a_seed_decides_all_episodes_and_each_has_its_own() -> None:
    one, other = (started(counters(horizon=3), sizes(1, 1)) for _ in range(2))
    seen = []
    for _ in range(2):
        for _ in range(3):
            (_, rewards, *_), (_, again, *_) = one.step(idle(one)), other.step(idle(other))
            assert torch.equal(rewards, again)
            seen += rewards.tolist()
        one.reset()
        other.reset()
    assert len(set(seen)) == 12


def test_asynchronous_worlds_are_those_of_this_process_bit_for_bit() -> None:
    family = CartPoleParams(horizon=40)
    one, other = started(family), started(dataclasses.replace(family, vectorization="async"))
    one.action_space.seed(0)
    for step in range(60):
        if step % 20 == 10:
            mask = torch.tensor([step % 40 == 10, True, False])
            assert torch.equal(*(env.reset(options={"reset_mask": mask})[0] for env in (one, other)))
        action = torch.as_tensor(one.action_space.sample())
        for a, b in zip(one.step(action)[:4], other.step(action)[:4], strict=True):
            assert torch.equal(a, b)
    other.close()


def test_a_learner_adapts_on_an_unregistered_instance() -> None:
    family = GymnasiumFamily(
        "CartPole-v1", spaces.Dict({"force_mag": spaces.Box(5.0, 15.0, (), np.float32)}), 20, vectorization="async"
    )
    learner = MamlTrpo(family, MamlTrpoConfig(hidden_sizes=(8,)), 0, torch.device("cpu"))
    tasks = TaskSplit(family).held_out_tasks("test", 2)
    curve = adaptation_curve(learner, Sampler(family), tasks, 1, 3)
    assert curve.returns.shape == (2, 2)
    assert (curve.returns > 1).all()


def test_the_example_trains_from_the_command_line(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    words = "--iterations 1 --tasks-per-batch 2 --episodes-per-task 2 --horizon 10 --hidden-sizes 8 --track disabled"
    assert main(["train", "maml-trpo", "cartpole-params", *words.split(), "--out", str(tmp_path / "run")]) == 0
    assert "trained 1 iterations" in capsys.readouterr().out


def test_a_single_environment_gives_numpy() -> None:
    env = TaskEnv(counters(), sizes(2))  # type: ignore[arg-type]
    observation, _ = env.reset(seed=0)
    assert observation.tolist() == [2, 0]
    assert env.step(np.zeros(1))[4] == {"success": 0.0, "height": 1.0}


def test_settings_are_words_and_numbers() -> None:
    settings = json.loads(json.dumps(counters().settings()))
    assert settings["env"] == "Counter"
    assert settings["task_space"] == "Dict('size': Discrete(3, start=1), 'slope': Box(0.0, 2.0, (), float64))"


# Tasks


def test_tasks_are_drawn_from_the_whole_space() -> None:
    space = spaces.Dict(
        {
            "mass": spaces.Box(np.array([1.0, -2.0]), np.array([2.0, 5.0]), dtype=np.float64),
            "level": spaces.Discrete(4, start=2),
            "cell": spaces.Box(0, 1, (2,), np.int32),
        }
    )
    tasks = counters(task_space=space).sample_tasks(500, torch.Generator().manual_seed(0))
    for row in tasks[:20]:
        assert space.contains({key: value.numpy() for key, value in row.items()})
    torch.testing.assert_close(tasks["mass"].mean(0), torch.tensor([1.5, 1.5]).double(), atol=0.3, rtol=0)
    assert tasks["level"].unique().tolist() == [2, 3, 4, 5]
    assert tasks["cell"].dtype == torch.int32


def test_few_tasks_are_listed_and_partitioned() -> None:
    family = counters(task_space=spaces.Dict({"a": spaces.Discrete(3), "b": spaces.Box(4, 5, (2,), np.int64)}))
    tasks = family.all_tasks()
    assert tasks is not None
    rows = {(int(row["a"]), *row["b"].tolist()) for row in tasks}
    assert len(rows) == len(tasks) == 12
    parts = [TaskSplit(family).finite(part) for part in PARTS]
    assert [len(part) for part in parts if part is not None] == [8, 2, 2]


def test_many_whole_tasks_are_disjoint_by_their_parts() -> None:
    family = counters(task_space=spaces.Dict({"level": spaces.Discrete(20_000)}))
    assert family.all_tasks() is None
    split = TaskSplit(family)
    drawn = [split.train_tasks(3000), *(split.held_out_tasks(part, 400) for part in PARTS[1:])]
    levels = [set(tasks["level"].tolist()) for tasks in drawn]
    assert len(set.union(*levels)) == sum(map(len, levels))


# What is refused


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task_space": None}, "Counter: task_space must name at least one parameter"),
        ({"task_space": spaces.Dict({"size": spaces.Box(0, np.inf)})}, "size must lie in a bounded Box or a Discrete"),
        ({"horizon": None}, "Counter has no time limit in Gymnasium's registry; give the family a horizon"),
        ({"horizon": 0}, "horizon must be at least 1, not 0"),
        ({"maker": "CartPool-v1", "horizon": None}, "Gymnasium has no environment 'CartPool-v1'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        counters(**changes)


def test_an_unknown_vectorization_is_refused() -> None:
    with pytest.raises(InputError, match="must be sync or async, not 'threads'"):
        started(counters(vectorization="threads"))


def test_an_unknown_parameter_is_refused_with_those_close_by() -> None:
    family = counters(task_space=spaces.Dict({"sloope": spaces.Discrete(3)}))
    with pytest.raises(InputError, match=r"Counter has neither .* nor an attribute 'sloope'; did you mean slope"):
        TaskVectorEnv(family, 1)
    stranger = counters(task_space=spaces.Dict({"zzz": spaces.Discrete(3)}))
    with pytest.raises(InputError, match="attribute 'zzz'; it has render_mode, size, action_space, count"):
        TaskVectorEnv(stranger, 1)


def test_an_environment_that_cannot_be_made_is_refused() -> None:
    with pytest.raises(InputError, match=r"broken cannot be made \(ZeroDivisionError: .*\)"):
        TaskVectorEnv(counters(broken, task_space=spaces.Dict({"size": spaces.Discrete(1)})), 1)


def broken(size: int) -> Environment:
    return Counter(1 // size)


@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_spaces_that_differ_between_tasks_are_refused(vectorization: Any) -> None:
    space = spaces.Dict({"size": spaces.Discrete(3, start=1)})
    family = counters(Wide, task_space=space, vectorization=vectorization)
    message = r"Wide: tasks must share their spaces, but the observation_space is .*\(.,\).* in the task size=. and"
    with pytest.raises(InputError, match=message):
        started(family, TensorDict({"size": torch.tensor([1, 2, 3])}, [3]))


@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_an_error_of_the_environment_names_task_and_step_and_keeps_its_trace(vectorization: Any) -> None:
    env = started(troubled(1, vectorization=vectorization))
    env.step(idle(env))
    env.step(idle(env))
    with pytest.raises(RunError) as caught:
        env.step(idle(env))
    said = (
        r"Counter failed at step 2, in the task trouble=1: ValueError: the wheels \(.*test_gymnasium_adapter\.py:\d+\)"
    )
    assert re.fullmatch(said, str(caught.value))
    assert 'raise ValueError("the wheels' in caught.value.__notes__[0]
    env.close()


@pytest.mark.parametrize("horizon", [3, 6])
def test_an_environment_that_truncates_ends_its_episode(horizon: int) -> None:
    env = started(troubled(3, horizon=horizon))
    assert [env.step(idle(env))[3].all().item() for _ in range(3)] == [False, False, True]


def test_an_observation_outside_its_space_is_reported() -> None:
    kind = type("Kind", (Seen,), {"seen": (spaces.Box(0, 1, (2,)), np.zeros(3))})
    with pytest.raises(RunError, match=r"failed at reset, .* an observation of shape .3,. in a space of shape .2,."):
        started(counters(kind, task_space=spaces.Dict({"slope": spaces.Discrete(1)})))


def test_nan_is_found_by_the_sampler_with_task_and_step() -> None:
    family = troubled(2)
    learner = MamlTrpo(family, MamlTrpoConfig(hidden_sizes=(8,)), 0, torch.device("cpu"))
    tasks = family.sample_tasks(1, torch.Generator())
    message = r"rewards became NaN or infinite in Counter, task 0 \(trouble=2\), episode 0, step 1, seed 5"
    with pytest.raises(RunError, match=message):
        Sampler(family).collect(learner, learner.begin(1), tasks, 2, 5)


# Pictures


def test_pictures_are_the_environments_own() -> None:
    env = TaskVectorEnv(counters(), 2, render_mode="rgb_array")
    env.reset(seed=0)
    env.step(idle(env))
    frames = env.render()
    assert frames is not None
    assert [frame.tolist() for frame in frames] == [np.ones((2, 2, 3)).tolist()] * 2


@pytest.mark.parametrize(
    "family", [counters(Wide, task_space=spaces.Dict({"slope": spaces.Discrete(2)})), CartPoleParams()]
)
def test_what_cannot_render_is_described_in_words(family: GymnasiumFamily, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pygame", None)
    env = TaskVectorEnv(family, 1, render_mode="rgb_array")
    observations, _ = env.reset(seed=0)
    frames = env.render()
    assert frames is not None
    assert np.array_equal(frames[0], text_picture(describe(env.tasks[0], observations[0])))


def test_a_failure_to_draw_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    env = TaskVectorEnv(counters(), 1, render_mode="rgb_array")
    env.reset(seed=0)
    monkeypatch.setattr(Counter, "render", lambda self: 1 // 0)
    with pytest.raises(InputError, match="Counter cannot be rendered on this machine: ZeroDivisionError"):
        env.render()


# Processes


def test_processes_start_late_and_end_with_the_environment() -> None:
    env = TaskVectorEnv(counters(vectorization="async"), 2)
    assert active_children() == []
    env.reset(seed=0)
    assert len(active_children()) == 2
    env.close()
    assert active_children() == []


def test_processes_end_with_the_last_reference() -> None:
    env = started(counters(vectorization="async"))
    assert len(active_children()) == 3
    del env
    gc.collect()
    assert active_children() == []


def test_processes_leave_an_interrupt_to_the_main_one() -> None:
    env = started(counters(vectorization="async"))
    for process in active_children():
        os.kill(process.pid or 0, signal.SIGINT)
    time.sleep(0.1)
    env.step(idle(env))
    env.close()


def test_the_death_of_a_process_is_reported_and_ends_the_others() -> None:
    env = started(counters(vectorization="async"))
    vector(env).processes[1].kill()
    with pytest.raises(
        RunError, match="the process of a world died; 3 worlds may need too much memory: use fewer tasks"
    ):
        env.step(idle(env))
    assert active_children() == []
    env.reset(seed=0)
    env.close()


@dataclass(frozen=True)
class Doubled(GymnasiumFamily):
    """Sets what no attribute has the name of."""

    def apply(self, env: Environment, task: Task) -> None:
        counter: Any = env.unwrapped
        counter.slope = 2 * task["half_slope"]


def test_a_subclass_may_apply_tasks_its_own_way_in_processes_too() -> None:
    space = spaces.Dict({"half_slope": spaces.Discrete(1, start=4)})
    env = started(Doubled(Counter, space, 5, "async"))
    assert env.step(idle(env))[0][:, 1].tolist() == [8, 8, 8]
    env.close()
