"""What every registered family promises, whatever it is."""

import dataclasses
import re
import warnings
from ctypes.util import find_library
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode
from stable_baselines3.common.env_checker import check_env as check_env_for_sb3
from tensordict import TensorDict

import metarl.envs
from metarl.envs.locomotion.worlds import LocomotionDynamics, LocomotionFamily
from metarl.envs.simulation.rendering import OFFSCREEN
from metarl.envs.wrapped.meta_world import MetaWorldFamily
from metarl.errors import InputError
from metarl.families.family import FAMILIES, TaskFamily, make_family
from metarl.families.spaces import is_image, unit_scale
from metarl.worlds.numpy_env import TaskEnv
from metarl.worlds.vector_env import TaskVectorEnv

WORLDS = 3
# Their starts or steps are drawn, so that two worlds in the same task differ.
RANDOM = {"bandit", "tabular-mdp", "cartpole-params"}
# What the checkers say about spaces that are as the literature has them.
KNOWN_WARNINGS = (
    "Box observation space (minimum|maximum) value is -?infinity|symmetric and normalized Box action space"
    "|minimal resolution for an image is 36x36"  # of SB3's own convolutions, which the baselines here do not use
)
PRESETS = [(name, preset) for name, family in FAMILIES.items() for preset in family.presets]
# Presets that differ from the family's first, or from those of ML10, in numbers and names alone.
ALIKE = [
    (name, preset)
    for name, preset in PRESETS
    if name in ("metaworld-ml25", "metaworld-ml45")
    or (issubclass(FAMILIES[name], LocomotionFamily) and preset != next(iter(FAMILIES[name].presets)))
]

assert metarl.envs is not None  # Importing it registered the families.


@pytest.fixture(params=sorted(FAMILIES))
def family(request: pytest.FixtureRequest) -> TaskFamily:
    """Every family, with episodes of at most five steps."""
    made = make_family(request.param)
    return dataclasses.replace(made, horizon=min(made.horizon, 5))  # type: ignore[type-var]


@pytest.fixture(params=["navigation-2d", "half-cheetah-vel", "cartpole-params"])
def example(request: pytest.FixtureRequest) -> TaskFamily:
    """A family of each kind (tensors, simulations, wrapped environments), where no family has code of its own."""
    return make_family(request.param, horizon=5)


@pytest.fixture(params=sorted(set(FAMILIES) - RANDOM))
def deterministic_family(request: pytest.FixtureRequest) -> TaskFamily:
    """Every family whose steps are not random."""
    return make_family(request.param, horizon=5)


def batch(
    family: TaskFamily, autoreset_mode: AutoresetMode = AutoresetMode.DISABLED, tasks: TensorDict | None = None
) -> TaskVectorEnv:
    env = TaskVectorEnv(family, WORLDS, autoreset_mode=autoreset_mode)
    if tasks is not None:
        env.set_tasks(tasks)
    env.reset(seed=0)
    return env


def actions(env: TaskVectorEnv, count: int) -> list[torch.Tensor]:
    """Draw ``count`` batches of actions from the action space."""
    env.action_space.seed(1)
    return [torch.as_tensor(env.action_space.sample()) for _ in range(count)]


def check(checker: Any, env: gymnasium.Env[Any, Any], **settings: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=f"(?s).*({KNOWN_WARNINGS})")
        checker(env, **settings)


@pytest.mark.parametrize(("name", "preset"), [each for each in PRESETS if each not in ALIKE])
def test_single_environments_pass_gymnasiums_checker(name: str, preset: str) -> None:
    # Pictures of MuJoCo's worlds take most of the time: one is drawn of each robot, and of each Meta-World family.
    family = FAMILIES[name]
    if issubclass(family, LocomotionFamily):
        drawn = name == next(other for other, each in FAMILIES.items() if getattr(each, "robot", None) is family.robot)
    else:
        drawn = preset == next(iter(family.presets)) or not issubclass(family, MetaWorldFamily)
    check(check_env, gymnasium.make(family.env_id, preset=preset).unwrapped, skip_render_check=not drawn)


@pytest.mark.parametrize(("name", "preset"), ALIKE)
def test_other_presets_are_stepped_in_their_spaces(name: str, preset: str) -> None:
    env = gymnasium.make(FAMILIES[name].env_id, preset=preset)
    observation, _ = env.reset(seed=0)
    stepped, *_ = env.step(env.action_space.sample())
    assert all(env.observation_space.contains(each) for each in (observation, stepped))
    env.close()


def test_single_environments_pass_stable_baselines3s_checker(family: TaskFamily) -> None:
    # It looks at spaces and types, which a preset does not change.
    check(check_env_for_sb3, TaskEnv(family))


def test_presets_name_fields() -> None:
    for family in FAMILIES.values():
        fields = {field.name for field in dataclasses.fields(family)}  # type: ignore[arg-type]
        assert all(set(preset) <= fields for preset in family.presets.values())


def test_names_and_ids_follow_the_pattern() -> None:
    for family in FAMILIES.values():
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", family.name)
        assert re.fullmatch(r"metarl/[A-Za-z0-9]+-v\d+", family.env_id)


def test_make_vec_gives_torch_tensors(family: TaskFamily) -> None:
    env = gymnasium.make_vec(family.env_id, num_envs=WORLDS, output="torch")
    observations, _ = env.reset(seed=0)
    stepped, rewards, terminated, truncated, _ = env.step(torch.as_tensor(env.action_space.sample()))
    shape = (WORLDS, *env.single_observation_space.shape)
    kind = torch.uint8 if is_image(family.observation_space) else torch.float32
    assert [(x.dtype, x.shape) for x in (observations, stepped)] == [(kind, shape)] * 2
    assert (rewards.dtype, rewards.shape) == (torch.float32, (WORLDS,))
    assert [(x.dtype, x.shape) for x in (terminated, truncated)] == [(torch.bool, (WORLDS,))] * 2


def test_make_vec_says_how_it_resets(example: TaskFamily) -> None:
    env = gymnasium.make_vec(example.env_id, num_envs=2, output="torch")
    assert env.metadata["autoreset_mode"] is env.autoreset_mode is AutoresetMode.NEXT_STEP
    assert env.spec is not None


def test_make_vec_may_leave_resets_to_the_user(example: TaskFamily) -> None:
    env = gymnasium.make_vec(example.env_id, num_envs=2, output="torch", autoreset_mode=AutoresetMode.DISABLED)
    assert env.metadata["autoreset_mode"] is AutoresetMode.DISABLED


def test_single_environments_give_numpy(family: TaskFamily) -> None:
    env = TaskEnv(family)
    observation, _ = env.reset(seed=0)
    stepped, reward, terminated, truncated, _ = env.step(env.action_space.sample())
    assert observation.dtype == stepped.dtype == (np.uint8 if is_image(family.observation_space) else np.float32)
    assert [type(x) for x in (reward, terminated, truncated)] == [float, bool, bool]


def test_observations_lie_in_their_space(family: TaskFamily) -> None:
    env = batch(family)
    for action in actions(env, family.horizon):
        assert env.observation_space.contains(env.step(action)[0].numpy())


def test_numpy_actions_will_do(example: TaskFamily) -> None:
    one, other = batch(example), batch(example)
    action = actions(one, 1)[0]
    assert torch.equal(one.step(action)[0], other.step(action.numpy())[0])  # type: ignore[arg-type]


def test_double_precision_actions_leave_everything_float32(family: TaskFamily) -> None:
    # NumPy's own numbers are float64; the observation must stay in its space.
    if not isinstance(family.action_space, gymnasium.spaces.Box):
        pytest.skip("actions are no numbers")
    env = batch(family)
    observations, rewards, *_ = env.step(actions(env, 1)[0].double())
    assert (observations.dtype, rewards.dtype) == (torch.float32, torch.float32)


def test_observations_are_not_overwritten_by_the_next_step(family: TaskFamily) -> None:
    env = batch(family)
    first, second = actions(env, 2)
    observations, *_ = env.step(first)
    before = observations.clone()
    env.step(second)
    assert torch.equal(observations, before)


def test_the_same_seed_gives_the_same_episode(family: TaskFamily) -> None:
    one, other = batch(family), batch(family)
    for action in actions(one, family.horizon):
        for a, b in zip(one.step(action)[:4], other.step(action)[:4], strict=True):
            assert torch.equal(a, b)


def test_a_batch_equals_single_environments(deterministic_family: TaskFamily) -> None:
    family = deterministic_family
    tasks = family.sample_tasks(WORLDS, torch.Generator().manual_seed(2))
    together = batch(family, tasks=tasks)
    singles = [TaskEnv(family, tasks[row : row + 1]) for row in range(WORLDS)]  # type: ignore[arg-type]
    for row, env in enumerate(singles):
        env.reset(seed=row)
        if isinstance(worlds := env._worlds._dynamics, LocomotionDynamics):
            source = together._dynamics
            assert isinstance(source, LocomotionDynamics)
            state = [getattr(source.simulation, name)[row : row + 1].clone() for name in ("qpos", "qvel")]
            worlds.simulation.restart(torch.ones(1, dtype=torch.bool), *state)
    for action in actions(together, family.horizon):
        observations, rewards, terminated, truncated, _ = together.step(action)
        for row, env in enumerate(singles):
            single = env.step(action[row].numpy())
            assert np.array_equal(single[0], observations[row].numpy())
            assert single[1:4] == (rewards[row].item(), terminated[row].item(), truncated[row].item())


def test_episodes_end_once_and_are_cut_exactly_at_the_horizon(family: TaskFamily) -> None:
    env = batch(family)
    alive = torch.ones(WORLDS, dtype=torch.bool)
    for step, action in enumerate(actions(env, family.horizon), start=1):
        _, _, terminated, truncated, _ = env.step(action)
        assert not (terminated & truncated).any()
        assert torch.equal(truncated & alive, alive & ~terminated & (step == family.horizon))
        alive &= ~(terminated | truncated)
    assert not alive.any()


def test_autoreset_is_a_reset_of_what_ended(family: TaskFamily) -> None:
    # The same worlds, once resetting themselves and once reset by hand where they ended.
    auto, by_hand = batch(family, AutoresetMode.SAME_STEP), batch(family, AutoresetMode.DISABLED)
    endings = 0
    for action in actions(auto, 2 * family.horizon + 1):
        observations, *outcome, info = auto.step(action)
        expected, *expected_outcome, _ = by_hand.step(action)
        ended = outcome[1] | outcome[2]
        assert all(torch.equal(a, b) for a, b in zip(outcome, expected_outcome, strict=True))
        if ended.any():
            endings += 1
            assert torch.equal(info["_final_obs"], ended)
            assert torch.equal(info["final_obs"][ended], expected[ended])
            expected, _ = by_hand.reset(options={"reset_mask": ended})
        assert torch.equal(observations, expected)
    assert endings >= 2


def test_a_masked_reset_leaves_the_others_alone(deterministic_family: TaskFamily) -> None:
    env, twin = batch(deterministic_family), batch(deterministic_family)
    first, second = actions(env, 2)
    before, *_ = env.step(first)
    twin.step(first)
    observations, _ = env.reset(options={"reset_mask": torch.tensor([True, False, False])})
    assert torch.equal(observations[1:], before[1:])
    for a, b in zip(env.step(second)[:4], twin.step(second)[:4], strict=True):
        assert torch.equal(a[1:], b[1:])


def test_a_masked_reset_draws_a_task_only_there(family: TaskFamily) -> None:
    env = batch(family)
    before = env.tasks.clone()
    env.reset(options={"reset_mask": torch.tensor([True, False, False])})
    for key, value in env.tasks.items():
        assert torch.equal(value[1:], before[key][1:])
    assert any(not torch.equal(value[0], before[key][0]) for key, value in env.tasks.items())


def test_sampled_tasks_lie_in_the_task_space(family: TaskFamily) -> None:
    tasks = family.sample_tasks(50, torch.Generator().manual_seed(0))
    assert tasks.batch_size == torch.Size([50])
    for row in range(50):
        values = {key: value[row].numpy() for key, value in tasks.items()}
        # A Dict space wants arrays; numpy() of a scalar tensor is one.
        assert family.task_space.contains(values), values


def test_all_tasks_are_tasks(family: TaskFamily) -> None:
    if (tasks := family.all_tasks()) is None:
        pytest.skip("infinitely many tasks")
    for row in range(len(tasks)):
        family.make_task({key: value[row].numpy() for key, value in tasks.items()})


def test_a_sampled_task_can_be_made_by_name(family: TaskFamily) -> None:
    tasks = family.sample_tasks(1, torch.Generator().manual_seed(0))
    made = family.make_task({key: value[0].numpy() for key, value in tasks.items()})
    assert all(torch.equal(made[key], tasks[key]) and made[key].dtype == tasks[key].dtype for key in tasks.keys())


def test_make_task_refuses_wrong_names(example: TaskFamily) -> None:
    with pytest.raises(InputError, match=rf"{example.name}: a task needs the parameters .*, not \['nonsense'\]"):
        example.make_task({"nonsense": 1})


def test_make_task_refuses_values_out_of_range(family: TaskFamily) -> None:
    values = {key: np.full(space.shape or (), 1e6) for key, space in family.task_space.items()}
    with pytest.raises(InputError, match=rf"{family.name}: task parameter .* lies outside"):
        family.make_task(values)


def test_sampling_tasks_leaves_the_global_streams_alone(family: TaskFamily) -> None:
    torch_before, numpy_before = torch.get_rng_state(), np.random.get_state()  # noqa: NPY002
    family.sample_tasks(5, torch.Generator().manual_seed(0))
    assert torch.equal(torch.get_rng_state(), torch_before)
    assert np.array_equal(np.random.get_state()[1], numpy_before[1])  # noqa: NPY002


def test_unit_actions_land_in_the_action_space(family: TaskFamily) -> None:
    if not isinstance(family.action_space, gymnasium.spaces.Box):
        pytest.skip("actions are no numbers")
    scaled = unit_scale(family.action_space, torch.device("cpu"))(3 * torch.randn(50, *family.action_space.shape))
    assert all(family.action_space.contains(action.numpy()) for action in scaled)


def test_make_refuses_an_unknown_preset(example: TaskFamily) -> None:
    with pytest.raises(InputError, match=f"{example.name} has no preset 'nonsense'"):
        gymnasium.make(example.env_id, preset="nonsense")


def test_a_mistyped_family_is_suggested(example: TaskFamily) -> None:
    with pytest.raises(InputError, match=f"did you mean .*{example.name}"):
        make_family(f"{example.name}x")


@pytest.fixture
def rendering_family(family: TaskFamily) -> TaskFamily:
    if isinstance(family, LocomotionFamily) and not any(find_library(name) for name in OFFSCREEN):
        pytest.skip("needs EGL or OSMesa; this machine has neither")
    return family


def test_worlds_are_drawn_and_drawing_changes_nothing(rendering_family: TaskFamily) -> None:
    disabled = AutoresetMode.DISABLED
    drawn = TaskVectorEnv(rendering_family, WORLDS, autoreset_mode=disabled, render_mode="rgb_array")
    twin = batch(rendering_family, disabled)
    drawn.reset(seed=0)
    frames = drawn.render()
    assert frames is not None
    assert len(frames) == WORLDS
    for frame in frames:
        assert (frame.dtype, frame.shape) == (np.uint8, (*frame.shape[:2], 3))
        assert frame.std() > 1
    action = actions(twin, 1)[0]
    for a, b in zip(drawn.step(action)[:4], twin.step(action)[:4], strict=True):
        assert torch.equal(a, b)
    drawn.close()


def test_without_a_render_mode_nothing_is_drawn(example: TaskFamily) -> None:
    assert batch(example).render() is None


def test_another_render_mode_is_refused(example: TaskFamily) -> None:
    with pytest.raises(InputError, match=f"{example.name} has no render mode 'human'; it has rgb_array"):
        TaskEnv(example, render_mode="human")
