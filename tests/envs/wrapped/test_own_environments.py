"""What happens to the environments that people bring: each works, or is refused in one line that says what to do."""

import dataclasses
import random
import time
import warnings
from typing import Any

import gymnasium
import mujoco
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from tensordict import TensorDict

from metarl.agents.gradient.maml_trpo import MamlTrpo, MamlTrpoConfig
from metarl.envs.wrapped.gymnasium_adapter import GymnasiumFamily
from metarl.envs.wrapped.world import Environment, Task
from metarl.errors import InputError
from metarl.evaluation.evaluate import adaptation_curve
from metarl.families.family import TaskFamily
from metarl.learning.learner import LEARNERS
from metarl.rollouts.returns import generalized_advantages
from metarl.rollouts.rollout import Rollout
from metarl.sampling.sampler import Sampler
from metarl.worlds.vector_env import TaskVectorEnv
from tests.envs.wrapped import own_environments as own

GOAL = spaces.Dict({"goal": own.GOALS})
TASKS = [-0.8, 0.1, 0.6]


def family(kind: Any, space: spaces.Dict = GOAL, **settings: Any) -> GymnasiumFamily:
    return GymnasiumFamily(kind, space, **{"horizon": 6, **settings})


def tasks(name: str = "goal", values: Any = TASKS) -> TensorDict:
    return TensorDict({name: torch.tensor(values)}, [len(values)])


def started(chosen: TaskFamily, given: TensorDict, seed: int = 0) -> TaskVectorEnv:
    env = TaskVectorEnv(chosen, len(given), autoreset_mode=AutoresetMode.DISABLED)
    env.set_tasks(given)
    env.reset(seed=seed)
    return env


def idle(env: TaskVectorEnv) -> torch.Tensor:
    return torch.zeros(env.action_space.shape)


def rewards(chosen: TaskFamily, given: TensorDict) -> list[float]:
    """Return the rewards of staying at 0, which are minus the distances from the goals."""
    env = started(chosen, given)
    found = env.step(idle(env))[1].tolist()
    env.close()
    return [round(reward, 6) for reward in found]


def collected(chosen: TaskFamily, given: TensorDict, episodes: int = 2) -> Rollout:
    learner = MamlTrpo(chosen, MamlTrpoConfig(hidden_sizes=(8,)), 0, torch.device("cpu"))
    return Sampler(chosen).collect(learner, learner.begin(len(given)), given, episodes, 3)


# How a task reaches an environment


FOLLOWED = [-0.8, -0.1, -0.6]


class Unnamed(own.Point):
    def __init__(self) -> None:
        super().__init__()


class AppliesResetTask(GymnasiumFamily):
    def apply(self, env: Environment, task: Task) -> None:
        point: Any = env.unwrapped
        point.reset_task(task["goal"])


def keywords(**kwargs: Any) -> Environment:
    return own.Point(**kwargs)


@pytest.mark.parametrize("vectorization", ["sync", "async"])
@pytest.mark.parametrize(
    "chosen",
    [
        family(own.Point),
        family(Unnamed),
        family(own.Point, delivery={"goal": "attribute"}),
        family(own.TaskThroughOptions, delivery={"goal": "reset option"}),
        family(own.PassesItOn),
        family(keywords, delivery={"goal": "constructor"}),
        AppliesResetTask(own.ResetTask, GOAL, 6),
    ],
    ids=["constructor", "attribute", "chosen attribute", "options", "passed on", "keywords", "reset_task"],
)
def test_rewards_follow_the_tasks(chosen: GymnasiumFamily, vectorization: str) -> None:
    chosen = dataclasses.replace(chosen, vectorization=vectorization)  # type: ignore[arg-type]
    assert rewards(chosen, tasks(values=TASKS[1:])) == FOLLOWED[1:]


def test_an_argument_that_is_passed_on_makes_the_environment() -> None:
    assert list(family(own.PassesItOn).constructor_parameters) == ["goal"]
    assert list(family(keywords).constructor_parameters) == []


def test_an_attribute_of_a_wrapper_is_set() -> None:
    space = spaces.Dict({"shift": spaces.Box(0.0, 9.0, (), np.float64)})
    chosen = family(lambda: own.Shifted(own.Point(0.0)), space)
    assert rewards(chosen, tasks("shift", [1.0, 2.0])) == [1.0, 2.0]


def test_a_seed_makes_a_level() -> None:
    chosen = family(own.Levels, spaces.Dict({"level": spaces.Discrete(100)}), delivery={"level": "seed"})
    again, first, second = tasks("level", [7, 7, 8]), [], []
    for found, seed in ((first, 0), (second, 1)):
        env = started(chosen, again, seed)
        found.extend(env.step(idle(env))[1].tolist())
    assert first == second
    assert first[0] == first[1] != first[2]


def test_mujocos_model_is_changed_in_apply() -> None:
    class Heavy(GymnasiumFamily):
        def apply(self, env: Environment, task: Task) -> None:
            hopper: Any = env.unwrapped
            hopper.model.body_mass[...] = task["body_mass"]
            mujoco.mj_setConst(hopper.model, hopper.data)

    space = spaces.Dict({"body_mass": spaces.Box(1.0, 9.0, (5,), np.float64)})
    env = started(Heavy("Hopper-v5", space, horizon=3), Heavy("Hopper-v5", space, 3).sample_tasks(2, torch.Generator()))
    worlds: Any = env._dynamics
    for world, mass in zip(worlds._worlds.envs, env.tasks["body_mass"], strict=True):
        assert world._env.unwrapped.model.body_mass.tolist() == mass.tolist()


# Tasks without an effect


@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_a_task_that_reset_overwrites_is_refused_with_both_values(vectorization: Any) -> None:
    message = r"DrawsItsOwnGoal: the task has no effect: goal is \S+ after reset, and was set to -0.8; .*'reset option'"
    with pytest.raises(InputError, match=message):
        started(family(own.DrawsItsOwnGoal, vectorization=vectorization), tasks())


def test_options_that_are_not_given_are_found_out() -> None:
    with pytest.raises(
        InputError, match=r"goal is 0. after reset, and was set to -0.8; .*delivery=.'goal': 'reset opt"
    ):
        started(family(own.TaskThroughOptions), tasks())


def test_an_option_that_reset_ignores_is_found_out() -> None:
    with pytest.raises(InputError, match=r"goal is 0.5 after reset, and was set to -0.8"):
        started(family(own.Point, delivery={"goal": "reset option"}), tasks())


def test_a_task_that_step_overwrites_is_refused_unless_it_is_a_starting_value() -> None:
    env = started(family(own.ForgetsItsGoal), tasks())
    with pytest.raises(InputError, match=r"goal is 0. after step, and was set to -0.8; .* unchecked=\('goal',\)"):
        env.step(idle(env))
    assert rewards(family(own.ForgetsItsGoal, unchecked=("goal",)), tasks()) == [0, 0, 0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"delivery": {"gaol": "seed"}}, r"delivery names \['gaol'\]; the task has \['goal'\]"),
        ({"unchecked": ("gaol",)}, r"unchecked names \['gaol'\]; the task has \['goal'\]"),
        ({"delivery": {"goal": "mail"}}, "the delivery of goal must be one of .*'reset option'.*, not 'mail'"),
        ({"delivery": {"goal": "seed"}}, "the seed goal must be a single integer, not Box"),
    ],
)
def test_ways_that_make_no_sense_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        family(own.Point, **settings)


# Global random streams


def starts(vectorization: str, seed: int = 0) -> list[float]:
    env = started(family(own.GlobalStream, vectorization=vectorization), tasks(values=[0.0] * 3), seed)
    found: list[float] = env._dynamics.observe()[:, 0].tolist()
    env.close()
    return found


def test_worlds_start_apart_and_alike_for_the_same_seed() -> None:
    for vectorization in ("sync", "async"):
        first, again, other = (starts(vectorization, seed) for seed in (0, 0, 1))
        assert len({*first, *other}) == 6
        assert first == again == starts("sync")


def test_steps_of_the_same_seed_are_alike() -> None:
    given = tasks(values=[0.0] * 3)
    one, other = (collected(family(own.GlobalStream), given) for _ in range(2))
    assert torch.equal(one.observations, other.observations)
    assert one.observations.unique().numel() == one.observations.numel()


def test_the_streams_of_the_process_continue_as_if_nothing_had_been_drawn() -> None:
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    expected = [random.random(), np.random.random(), random.random(), np.random.random()]  # noqa: NPY002
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    found = [random.random(), np.random.random()]  # noqa: NPY002
    env = started(family(own.GlobalStream), tasks())
    env.step(idle(env))
    assert [*found, random.random(), np.random.random()] == expected  # noqa: NPY002


# Episodes that the environment truncates


@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_a_row_ends_where_the_environment_truncates(vectorization: Any) -> None:
    env = started(family(own.LeavesTheArea, vectorization=vectorization), tasks())
    out = torch.tensor([[1.0], [0.0], [1.0]])
    steps = [env.step(out) for _ in range(6)]
    env.close()
    ends = [(terminated | truncated).tolist() for _, _, terminated, truncated, _ in steps]
    assert ends == [[False] * 3, *[[True, False, True]] * 4, [True] * 3]
    assert not any(terminated.any() for _, _, terminated, _, _ in steps)
    assert torch.equal(steps[1][0][0], steps[-1][0][0])


def test_a_truncated_row_is_bootstrapped_from_its_last_observation() -> None:
    rollout = collected(family(own.LeavesTheArea), tasks(), 4)
    lengths = rollout.valid.sum(-1)
    assert lengths.unique().numel() > 1
    assert not rollout.terminated.any()
    assert torch.equal(rollout.truncated.sum(-1), torch.ones_like(lengths))
    assert torch.equal(rollout.truncated.long().argmax(-1), lengths - 1)
    cut = lengths < 6
    assert cut.any()
    assert (rollout.final_observations[cut].abs() > 0.15).all()
    values = torch.zeros_like(rollout.rewards)
    after = torch.full_like(rollout.rewards[..., 0], 7.0)
    found = generalized_advantages(rollout.rewards, values, after, rollout.terminated, rollout.valid, 1.0, 1.0)
    torch.testing.assert_close(found[..., 0], rollout.episode_returns() + 7)


# Drawing


def test_what_cannot_draw_is_trained() -> None:
    assert collected(family(own.NeedsADisplay), tasks()).env_steps == 3 * 2 * 6


def test_what_cannot_draw_says_so_when_it_is_to_draw() -> None:
    env = TaskVectorEnv(family(own.NeedsADisplay), 1, render_mode="rgb_array")
    message = (
        "NeedsADisplay cannot be rendered on this machine: .* render_mode='rgb_array' .RuntimeError: cannot open a disp"
    )
    with pytest.raises(InputError, match=message):
        env.reset(seed=0)


# Spaces


KINDS = [own.Wide, own.Picture, own.Double, own.Buttons, own.StartsAtOne]
LIGHT = [name for name in LEARNERS if name.startswith(("maml", "reptile", "a2c"))]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("name", LIGHT)
def test_learners_adapt(kind: Any, name: str) -> None:
    chosen = family(kind)
    begin = time.perf_counter()
    learner = LEARNERS[name](chosen, LEARNERS[name].config_class(), 0, torch.device("cpu"))
    curve = adaptation_curve(learner, Sampler(chosen), tasks(values=TASKS[:1]), 1, 4)
    assert np.isfinite(curve.returns).all()
    assert time.perf_counter() - begin < 20


# Goal environments


def test_a_goal_that_is_observed_is_said_unless_it_was_chosen() -> None:
    message = "GoalEnvironment: the observation's 'desired_goal' is the task's goal, so a policy sees the task"
    with pytest.warns(UserWarning, match=message):
        started(family(own.GoalEnvironment), tasks())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        chosen = family(own.GoalEnvironment, observation_keys=("observation", "desired_goal"))
        assert chosen.observation_space.shape == (2,)
        started(chosen, tasks())
        started(family(own.GoalEnvironment, observation_keys=("observation",)), tasks())


def test_one_key_is_observed_as_it_is() -> None:
    chosen = family(own.GoalEnvironment, observation_keys=("desired_goal",))
    assert chosen.observation_space == spaces.Box(-1, 1, (1,), np.float32)
    env = started(chosen, tasks())
    assert env.step(idle(env))[0][:, 0].tolist() == pytest.approx(TASKS)


def test_keys_that_are_not_there_are_refused() -> None:
    with pytest.raises(InputError, match=r"no keys \['place'\]; they have \['desired_goal', 'observation'\]"):
        _ = family(own.GoalEnvironment, observation_keys=("place",)).observation_space
    with pytest.raises(InputError, match="observation_keys selects from a Dict of observations, not from a Box"):
        _ = family(own.Point, observation_keys=("place",)).observation_space


def test_goal_environments_report_success() -> None:
    env = started(family(own.GoalEnvironment, observation_keys=("observation",)), tasks(values=[0.05, 0.5]))
    assert env.step(idle(env))[4]["success"].tolist() == [1, 0]
    success = collected(family(own.GoalEnvironment, observation_keys=("observation",)), tasks()).episode_success()
    assert success is not None


def test_steps_that_do_not_report_success_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    # Memory that was in use before is not zero.
    monkeypatch.setattr(torch.Tensor, "new_empty", lambda own, *shape, **how: own.new_ones(*shape, **how))
    rollout = collected(family(own.ReportsAtTheEnd), tasks())
    assert rollout.success is not None
    assert not rollout.success.any()


def test_a_rollout_without_any_report_of_success_had_none() -> None:
    chosen = family(own.ReportsSuccessOnly)
    learner = MamlTrpo(chosen, MamlTrpoConfig(hidden_sizes=(8,)), 0, torch.device("cpu"))
    curve = adaptation_curve(learner, Sampler(chosen), tasks(), steps=2, episodes=1)
    assert curve.success is not None
    assert curve.success.tolist() == [[0, 0, 1]] * 3
    silent = adaptation_curve(learner, Sampler(family(own.Point)), tasks(), steps=2, episodes=1)
    assert silent.success is None


# Messages


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        (own.OldReset, "its reset does not return"),
        (own.OldSeed, "its reset takes no seed"),
        (own.OldStep, "its step does not return"),
    ],
)
def test_the_old_api_is_named(kind: Any, what: str) -> None:
    with pytest.raises(InputError, match=rf"{kind.__name__} has the API of Gym before 0.26: {what}.*; define reset"):
        collected(family(kind), tasks())


def test_an_environment_without_public_attributes_has_a_whole_message() -> None:
    with pytest.raises(
        InputError, match=r"attribute 'goal'; it has no public ones; set it with delivery=.'goal': 'reset option'"
    ):
        _ = family(own.Secretive).observation_space


@pytest.mark.parametrize(("key", "place"), [("gravity", "model.opt.gravity"), ("body_mass", "model.body_mass")])
def test_mujocos_model_is_named(key: str, place: str) -> None:
    space = spaces.Dict({key: spaces.Box(-9.0, 9.0, (3,), np.float64)})
    with pytest.raises(InputError, match=rf"set env.unwrapped.{place}\[\.\.\.\] in a subclass's apply"):
        _ = family("Hopper-v5", space).observation_space


def test_an_attribute_that_cannot_be_set_is_one_line() -> None:
    kind = type("Fixed", (Unnamed,), {"twice": property(lambda self: 2 * self.goal)})
    with pytest.raises(InputError, match=r"Fixed: twice cannot be set .*; set what it is computed from"):
        _ = family(kind, spaces.Dict({"twice": own.GOALS})).observation_space


def test_registered_environments_keep_their_arguments() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gymnasium.register("test/Point-v0", own.Point, max_episode_steps=4)
    try:
        assert family("test/Point-v0", horizon=None).horizon == 4
        assert rewards(family("test/Point-v0"), tasks()) == FOLLOWED
    finally:
        del gymnasium.registry["test/Point-v0"]
