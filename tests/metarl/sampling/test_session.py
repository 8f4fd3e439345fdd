"""A session acts as the sampler does, learns from what it met, and refuses what is out of order."""

import dataclasses
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from tensordict import TensorDict
from torch import Tensor

import metarl
from metarl.agents.gradient.maml_trpo import MamlTrpo, MamlTrpoConfig
from metarl.agents.in_context.rl2 import Rl2, Rl2Config
from metarl.envs.wrapped.gymnasium_adapter import GymnasiumFamily
from metarl.errors import InputError
from metarl.families.family import TaskFamily, make_family
from metarl.learning.learner import LEARNERS, Learner
from metarl.rollouts.rollout import Rollout
from metarl.sampling.sampler import Sampler
from metarl.sampling.session import Session
from metarl.seeding import derive_seed, generator
from metarl.worlds.numpy_env import TaskEnv
from metarl.worlds.vector_env import TaskVectorEnv
from tests.fakes import EchoFamily, echo_tasks
from tests.runs import CHOOSING, SELF_CONTAINED, same, small

CPU = torch.device("cpu")
HORIZON = 6
EPISODES = 3
# Settings of single learners that only cost time here.
LITTLE_WORK = {"updates_per_iteration": 2, "model_updates": 1, "hidden_sizes": (8,), "hidden_size": 8}


def make(name: str) -> tuple[Learner, TaskFamily, TensorDict]:
    """Return an untrained learner, a family as it meets it, and one task."""
    family = make_family("gridnavi" if name in CHOOSING else "navigation-2d", horizon=HORIZON)
    learner = LEARNERS[name]
    names = {field.name for field in dataclasses.fields(learner.config_class)}
    config = learner.config_class(**{key: value for key, value in LITTLE_WORK.items() if key in names})
    viewed = learner.view(family, config)
    return learner(viewed, config, 1, CPU), viewed, family.sample_tasks(1, generator("task"))


def lived(session: Session, env: TaskEnv, seed: int) -> tuple[list[Any], list[float]]:
    """Step one episode by hand, with the random numbers that the sampler takes; return actions and rewards."""
    observation, _ = env.reset(seed=derive_seed(seed, "environments"))
    session.open(seed)
    actions, rewards = [], []
    while not session.ended:
        action = session.act(observation)
        observation, reward, terminated, truncated, _ = env.step(action)
        session.observe(observation, reward, terminated, truncated)
        actions.append(action)
        rewards.append(reward)
    return actions, rewards


@pytest.mark.parametrize("name", SELF_CONTAINED)
def test_an_episode_stepped_by_hand_is_the_samplers(name: str) -> None:
    learner, family, task = make(name)
    sampler, env = Sampler(family), TaskEnv(family, task)
    session, sampled = Session(learner, family), sampler.session(learner, task, episodes=1)
    session.begin(task)
    for seed in range(3):  # before adaptation, and after one and two
        rollout = sampler.run(sampled, seed)
        actions, rewards = lived(session, env, seed)
        assert rewards == rollout.rewards[0, 0].tolist()
        assert np.array_equal(np.stack(actions), in_env_units(family, rollout.actions[0, 0]))
        for each in (session, sampled):
            each.adapt()


def in_env_units(family: TaskFamily, actions: Tensor) -> np.ndarray:
    """Return a policy's actions as navigation takes them, or those of a Discrete space as they are."""
    scaled = actions.clamp(-1, 1) * 0.1 if actions.is_floating_point() else actions
    return scaled.numpy()


@pytest.mark.parametrize("name", SELF_CONTAINED)
def test_acting_on_a_state_that_is_not_open_is_refused(name: str) -> None:
    learner, family, _ = make(name)
    observation = torch.zeros(1, 1, *(family.observation_space.shape or ()))
    with pytest.raises(InputError, match=rf"^{name} cannot act on a state that is not open: call open") as refusal:
        learner.act(learner.begin(1), observation, torch.Generator())
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("name", SELF_CONTAINED)
def test_a_recorded_rollout_teaches_what_the_lived_one_does(name: str) -> None:
    learner, family, task = make(name)
    sampler = Sampler(family)
    one, other = (sampler.session(learner, task, episodes=1) for _ in range(2))
    rollout = sampler.run(one, seed=1)
    one.adapt()
    other.adapt(rollout)
    after = [sampler.run(session, seed=2) for session in (one, other)]
    # Memories that read an episode at once round otherwise than those that went through it step by step.
    torch.testing.assert_close(after[0].log_probs, after[1].log_probs, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(after[0].actions, after[1].actions, rtol=1e-5, atol=1e-5)


def rl2(family: TaskFamily, memory: str = "gru") -> Rl2:
    return Rl2(family, Rl2Config(memory=memory, hidden_size=8, episodes_per_trial=3), 1, CPU)  # type: ignore[arg-type]


@pytest.mark.parametrize("memory", ["gru", "transformer", "external"])
@pytest.mark.parametrize("lifetimes", [[9, 9, 9], [1, 3, 9], [2, 1, 1]], ids=str)
def test_what_was_remembered_is_what_reading_the_episode_leads_to(memory: str, lifetimes: list[int]) -> None:
    # Rows whose episode ended early were stepped on, and their memory does not know.
    learner, sampler = rl2(EchoFamily(), memory), Sampler(EchoFamily())
    session, read = sampler.session(learner, echo_tasks([1, 2, 3], lifetimes), episodes=2), learner.begin(3)
    for seed in range(3):
        read = learner.adapt(read, sampler.run(session, seed))
        session.adapt()
        assert session.state.memory.keys() == read.memory.keys()
        for name, value in read.memory.items():
            assert value.any()
            torch.testing.assert_close(session.state.memory[name], value, rtol=1e-4, atol=1e-5)
        for name in ("actions", "rewards", "starts"):
            assert torch.equal(getattr(session.state, name), getattr(read, name))


def test_the_memory_reads_no_episode_that_it_has_lived_through(monkeypatch: pytest.MonkeyPatch) -> None:
    learner, sampler = rl2(EchoFamily()), Sampler(EchoFamily())
    session = sampler.session(learner, echo_tasks([1, 2]), episodes=2)
    monkeypatch.setattr(learner, "adapt", None)
    for seed in range(2):
        sampler.run(session, seed)
        session.adapt()


def test_a_memory_persists_over_episodes_until_new_tasks() -> None:
    learner, family, task = make("rl2")
    session, env = Session(learner, family), TaskEnv(family, task)
    first, _ = lived(session, env, seed=0)
    again, _ = lived(session, env, seed=0)
    session.adapt()
    later, _ = lived(session, env, seed=0)
    session.begin()
    fresh, _ = lived(session, env, seed=0)
    assert np.array_equal(first, again)  # without adapt between them, both start from what was known before
    assert not np.array_equal(first, later)
    assert np.array_equal(first, fresh)


def maml(**settings: Any) -> tuple[MamlTrpo, TaskFamily]:
    family = make_family("navigation-2d", horizon=HORIZON)
    return MamlTrpo(family, MamlTrpoConfig(hidden_sizes=(8,), **settings), 1, CPU), family


def drive(session: Session, length: int, lead: tuple[int, ...] = ()) -> Rollout:
    """Let a session live through an episode of so many steps; rewards count them."""
    session.open()
    for step in range(length):
        session.act(np.full((*lead, 2), step, np.float32))
        ended = np.full(lead, step == length - 1)
        session.observe(np.full((*lead, 2), step + 1.0), np.full(lead, step), ended, ~ended & False)
    return session.close()


def test_rounds_since_the_last_adaptation_are_one_experience() -> None:
    learner, family = maml()
    session = Session(learner, family)
    first, second = drive(session, 1), drive(session, 3)
    session.adapt()

    def joined(one: Tensor, other: Tensor) -> Tensor:
        empty = torch.zeros(1, 1, 2, *one.shape[3:], dtype=one.dtype)
        return torch.cat([torch.cat([one, empty], 2), other], 1)

    names = ("observations", "actions", "rewards", "terminated", "truncated", "valid", "log_probs")
    whole = replace(
        second,
        **{name: joined(getattr(first, name), getattr(second, name)) for name in names},
        final_observations=torch.cat([first.final_observations, second.final_observations], 1),
    )
    expected = learner.adapt(learner.begin(1), whole)
    assert all(torch.equal(value, expected.params[name]) for name, value in session.state.params.items())
    assert (session.state.steps, session.recorded) == (1, 0)


def test_rounds_of_a_trial_are_read_one_after_the_other() -> None:
    learner, family, _ = make("rl2")
    session = Session(learner, family)
    rounds = [drive(session, length) for length in (2, 3)]
    session.adapt()
    expected = learner.adapt(learner.adapt(learner.begin(1), rounds[0]), rounds[1])
    torch.testing.assert_close(session.state.memory["hidden"], expected.memory["hidden"], rtol=1e-4, atol=1e-5)


def test_what_was_recorded_is_what_happened() -> None:
    learner, family = maml()
    rollout = drive(Session(learner, family), 3)
    assert rollout.observations.tolist() == [[[[0, 0], [1, 1], [2, 2]]]]
    assert rollout.final_observations.tolist() == [[[3, 3]]]
    assert rollout.rewards.tolist() == [[[0, 1, 2]]]
    assert rollout.terminated.tolist() == [[[False, False, True]]]
    assert rollout.valid.all()
    assert torch.equal(rollout.log_probs, rollout.distribution.log_prob(rollout.actions))


def test_episodes_may_be_longer_than_the_horizon() -> None:
    learner, family = maml()
    rollout = drive(Session(learner, family), 5 * HORIZON)
    assert rollout.rewards[0, 0].tolist() == list(range(5 * HORIZON))


@pytest.mark.parametrize("tensors", [False, True])
def test_many_tasks_and_episodes_are_the_samplers(tensors: bool) -> None:
    learner, family = maml()
    tasks = family.sample_tasks(2, generator("tasks"))
    rollout = Sampler(family).collect(learner, learner.begin(2), tasks, EPISODES, seed=3)
    session = Session(learner, family, tasks=2, episodes=EPISODES)
    worlds = TaskVectorEnv(family, 2 * EPISODES, autoreset_mode=AutoresetMode.DISABLED)
    worlds.set_tasks(tasks.repeat_interleave(EPISODES, 0))

    def rows(value: Tensor) -> Any:
        shaped = value.view(2, EPISODES, *value.shape[1:])
        return shaped if tensors else shaped.numpy()

    observations, _ = worlds.reset(seed=derive_seed(3, "environments"))
    session.open(seed=3)
    while not session.ended:
        actions = session.act(rows(observations))
        assert isinstance(actions, Tensor if tensors else np.ndarray)
        observations, *outcome, _ = worlds.step(torch.as_tensor(actions).flatten(0, 1))
        session.observe(rows(observations), *map(rows, outcome))
    found = session.close()
    for name in ("observations", "actions", "rewards", "final_observations", "valid"):
        assert torch.equal(getattr(found, name), getattr(rollout, name))


def test_the_rows_of_ended_episodes_are_ignored() -> None:
    learner, family = maml()
    session = Session(learner, family, tasks=1, episodes=2)
    session.open()
    for step in range(3):
        session.act(np.full((1, 2, 2), step, np.float32))
        ended = np.array([[step == 0, step == 2]])
        session.observe(np.full((1, 2, 2), step + 1.0), np.ones((1, 2)), ended, ended & False)
    rollout = session.close()
    assert rollout.valid.sum(-1).tolist() == [[1, 3]]
    assert rollout.final_observations.tolist() == [[[1, 1], [3, 3]]]
    assert rollout.episode_returns().tolist() == [[1, 3]]


def test_the_mode_does_not_depend_on_the_seed_and_samples_do() -> None:
    learner, family = maml()
    session, seen = Session(learner, family), np.zeros(2, np.float32)

    def first_action(**options: Any) -> list[float]:
        session.open(**options)
        return list(session.act(seen))

    assert first_action(seed=1, deterministic=True) == first_action(seed=2, deterministic=True)
    assert first_action(seed=1) == first_action(seed=1) != first_action(seed=2)
    assert first_action() != first_action()
    other = Session(learner, family)
    other.open()
    assert list(other.act(seen)) == list(Session.act(reopened(learner, family), seen))


def reopened(learner: Learner, family: TaskFamily) -> Session:
    session = Session(learner, family)
    session.open()
    return session


def test_actions_lie_in_the_action_space() -> None:
    learner, family = maml()
    session = Session(learner, family)
    session.open()
    for _ in range(20):
        action = session.act(np.zeros(2, np.float32))
        assert family.action_space.contains(action)
        session.observe(np.zeros(2), 0.0, False, False)


def test_a_session_leaves_the_learner_alone() -> None:
    learner, family = maml()
    before = {name: value.clone() for name, value in learner.state_dict()["params"].items()}
    session = Session(learner, family)
    drive(session, 3)
    session.adapt()
    assert all(torch.equal(value, before[name]) for name, value in learner.state_dict()["params"].items())


def test_a_run_is_put_to_use(tmp_path: Path) -> None:
    config = small(tmp_path / "run", "gridnavi", iterations=1, horizon=4)
    metarl.train(config)
    session = metarl.load_session(tmp_path / "run", tasks=2, episodes=3)
    trained = metarl.load_run(tmp_path / "run")[1]
    assert same(session.learner.state_dict(), trained.state_dict())
    session.open()
    assert session.act(np.zeros((2, 3, 2))).shape == (2, 3)


def opened(**settings: Any) -> Session:
    learner, family = maml()
    session = Session(learner, family, **settings)
    session.open()
    return session


SEEN = np.zeros(2, np.float32)


def test_verbs_out_of_order_are_refused() -> None:
    learner, family = maml()
    session = Session(learner, family)
    with pytest.raises(InputError, match="no episode is open: call open at the start of every episode"):
        session.act(SEEN)
    with pytest.raises(InputError, match="there is nothing to adapt to: run an episode first"):
        session.adapt()
    with pytest.raises(InputError, match="there are no episodes to close: call open, act and observe first"):
        session.close()
    session.open()
    with pytest.raises(InputError, match="observe needs an action: call act first"):
        session.observe(SEEN, 0.0, False, False)
    session.act(SEEN)
    with pytest.raises(InputError, match="act was called twice in one step"):
        session.act(SEEN)
    session.observe(SEEN, 0.0, False, False)
    with pytest.raises(InputError, match="observe needs an action: call act first"):
        session.observe(SEEN, 0.0, False, False)
    with pytest.raises(InputError, match="1 of 1 episodes have not ended: continue until session"):
        session.adapt()
    session.act(SEEN)
    session.observe(SEEN, 0.0, False, True)
    with pytest.raises(InputError, match="every episode has ended: call open for the next ones"):
        session.act(SEEN)
    session.adapt()


def test_unfinished_episodes_are_dropped_by_open() -> None:
    session = opened()
    session.act(SEEN)
    session.observe(SEEN, 0.0, False, False)
    session.open()
    assert session.recorded == 0


def test_wrong_shapes_are_refused() -> None:
    one, many = opened(), opened(tasks=2, episodes=3)
    with pytest.raises(InputError, match=r"^observations must have the shape \[2\], not \[3\]$"):
        one.act(np.zeros(3))
    with pytest.raises(InputError, match=r"^observations must have the shape \[2, 3, 2\], not \[6, 2\]$"):
        many.act(np.zeros((6, 2)))
    one.act(SEEN)
    with pytest.raises(InputError, match=r"^rewards must have the shape \[\], not \[1\]$"):
        one.observe(SEEN, [0.0], False, False)
    with pytest.raises(InputError, match=r"^truncated must have the shape \[\], not \[2\]$"):
        one.observe(SEEN, 0.0, False, [False, True])


def test_rollouts_that_do_not_fit_are_refused() -> None:
    learner, family, _ = make("rl2")
    rollout = Sampler(family).collect(learner, learner.begin(2), family.sample_tasks(2, generator(0)), 3, seed=0)
    with pytest.raises(InputError, match="this session has 1 tasks, but the rollout has 2"):
        Session(learner, family).adapt(rollout)
    with pytest.raises(InputError, match="this session has 2 trials of each task, but the rollout has 3"):
        Session(learner, family, tasks=2, episodes=2).adapt(rollout)
    Session(learner, family, tasks=2, episodes=3).adapt(rollout)


def test_a_learner_that_simulates_its_task_asks_for_its_parameters() -> None:
    learner, family, _ = make("ppo")
    session = Session(learner, family)
    drive(session, 2)
    with pytest.raises(InputError, match=r"the rollout has no goal; pass the tasks to session\.begin") as refusal:
        session.adapt()
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tasks": 0}, "tasks must be at least 1, not 0"),
        ({"tasks": 2, "episodes": 0}, "episodes must be at least 1, not 0"),
        ({"episodes": 3}, "pass tasks=1 for 3 in parallel"),
    ],
)
def test_counts_that_make_no_sense_are_refused(settings: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Session(*maml(), **settings)


def test_tasks_are_as_many_as_the_session_has() -> None:
    learner, family = maml()
    for go_on in (Session.begin, Session.change):
        with pytest.raises(InputError, match="this session has 1 tasks, but parameters of 2 were given"):
            go_on(Session(learner, family), family.sample_tasks(2, generator(0)))


def test_a_task_changes_between_episodes_only() -> None:
    learner, family = maml()
    session = Session(learner, family)
    session.open()
    with pytest.raises(InputError, match="1 of 1 episodes have not ended"):
        session.change(family.sample_tasks(1, generator(0)))


class Rooms(gymnasium.Env[Any, Any]):
    """Observes in parts."""

    observation_space = spaces.Tuple(
        [spaces.Dict(place=spaces.Box(-1, 1, (2,), np.float32), room=spaces.Discrete(3)), spaces.Box(0, 1, (1,))]
    )
    action_space = spaces.Discrete(2)

    def __init__(self, start: float = 0.0) -> None:
        self.start = start

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        return self.observation_space.sample(), {}


def test_observations_in_parts_are_passed_as_the_environment_returns_them() -> None:
    env = Rooms()
    family = GymnasiumFamily(Rooms, spaces.Dict(start=spaces.Box(0, 1)), horizon=5)
    learner = Rl2(family, Rl2Config(hidden_size=8), 1, CPU)
    observation, _ = env.reset()
    flat = spaces.flatten(env.observation_space, observation).astype(np.float32)
    found = []
    for made_with, given in ((env, observation), (env, flat), (family, flat)):
        session = Session(learner, made_with)
        session.open(0)
        with pytest.raises(InputError, match=r"must have the shape \[6\], not \[5\]"):
            session.act(flat[1:])
        found.append(session.act(given))
    assert found[0] == found[1] == found[2]
    session.open(0)
    with pytest.raises(InputError, match="is an array of numbers, not a tuple; flatten it with gymnasium"):
        session.act(observation)


@pytest.mark.parametrize("what", ["observations", "rewards"])
def test_numbers_that_are_not_finite_are_refused_where_an_episode_runs(what: str) -> None:
    learner, family, _ = make("maml-trpo")
    session = Session(learner, family, tasks=2)
    session.open(0)
    session.act(np.zeros((2, 1, 2)))
    rewards = np.zeros((2, 1))
    session.observe(np.zeros((2, 1, 2)), rewards, np.array([[True], [False]]), rewards > 0)
    seen, rewards = np.zeros((2, 1, 2)), np.zeros((2, 1))
    {"observations": seen, "rewards": rewards}[what][0, 0] = np.nan  # of an episode that has ended
    session.act(np.zeros((2, 1, 2)))
    session.observe(seen, rewards, np.zeros((2, 1)), np.zeros((2, 1)))
    {"observations": seen, "rewards": rewards}[what][1, 0] = np.inf
    session.act(np.zeros((2, 1, 2)))
    with pytest.raises(InputError, match=f"the {what} contain NaN or infinity"):
        session.observe(seen, rewards, np.zeros((2, 1)), np.zeros((2, 1)))
