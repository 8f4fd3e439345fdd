"""Our worlds in NumPy: under Gymnasium's wrappers, and in loops written for its own vector environments."""

import warnings
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import TimeAwareObservation, vector

import metarl.envs  # noqa: F401 (registers the families)
from metarl.errors import InputError
from metarl.families.family import make_family
from metarl.worlds.numpy_env import NumpyVectorEnv, TaskEnv
from metarl.worlds.vector_env import TaskVectorEnv

NEXT_STEP, SAME_STEP, DISABLED = AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP, AutoresetMode.DISABLED
WORLDS, HORIZON = 3, 4
WRAPPERS: list[tuple[Any, dict[str, Any]]] = [
    (vector.RecordEpisodeStatistics, {}),
    (vector.NormalizeObservation, {}),
    (vector.NormalizeReward, {}),
    (vector.FlattenObservation, {}),
    (vector.TransformObservation, {"func": lambda seen: seen}),
    (vector.TransformReward, {"func": lambda reward: reward}),
    (vector.DictInfoToList, {}),
    (vector.RescaleAction, {"min_action": -1.0, "max_action": 1.0}),
    (vector.ClipAction, {}),
    (vector.DtypeObservation, {"dtype": np.float64}),
]


def worlds(mode: AutoresetMode = NEXT_STEP, **settings: Any) -> Any:
    return gymnasium.make_vec(
        "metarl/Navigation2D-v0", num_envs=WORLDS, horizon=HORIZON, autoreset_mode=mode, **settings
    )


def run(env: Any, steps: int = 2 * HORIZON + 3) -> list[Any]:
    env.action_space.seed(0)
    found = [env.reset(seed=0)]
    for _ in range(steps):
        found.append(env.step(env.action_space.sample()))
        if env.metadata["autoreset_mode"] is DISABLED and (ended := found[-1][2] | found[-1][3]).any():
            env.reset(options={"reset_mask": ended})
    env.close()
    return found


# Wrappers that Gymnasium itself refuses in other modes than NEXT_STEP.
OBSERVING = (vector.FlattenObservation, vector.TransformObservation, vector.DtypeObservation)
REFUSED = {
    NEXT_STEP: (),
    SAME_STEP: (*OBSERVING, vector.NormalizeObservation),
    DISABLED: (vector.NormalizeObservation,),
}


@pytest.mark.parametrize("mode", AutoresetMode)
@pytest.mark.parametrize(("wrapper", "settings"), WRAPPERS, ids=lambda value: getattr(value, "__name__", ""))
def test_gymnasiums_vector_wrappers_work(wrapper: Any, settings: dict[str, Any], mode: AutoresetMode) -> None:
    if wrapper in REFUSED[mode]:
        with pytest.raises(ValueError, match=r"Expected .*autoreset_mode"):
            wrapper(worlds(mode), **settings)
        return
    for seen, *_ in run(wrapper(worlds(mode), **settings)):
        assert isinstance(seen, np.ndarray)


@pytest.mark.parametrize("mode", AutoresetMode)
def test_episode_statistics_are_those_of_the_rewards(mode: AutoresetMode) -> None:
    env = vector.RecordEpisodeStatistics(worlds(mode))
    run(env)
    assert list(env.length_queue) == [HORIZON] * (2 * WORLDS)
    rewards = np.stack([step[1] for step in run(worlds(DISABLED))[1 : 1 + HORIZON]])
    np.testing.assert_allclose(list(env.return_queue)[:WORLDS], rewards.sum(0), rtol=1e-6)


@pytest.mark.parametrize("mode", [NEXT_STEP, SAME_STEP])
def test_infos_and_ends_have_the_form_of_gymnasiums_own_vector_environments(mode: AutoresetMode) -> None:
    family = make_family("half-cheetah-vel", horizon=2)
    task = family.sample_tasks(1, torch.Generator().manual_seed(0))
    own = NumpyVectorEnv(family, 2, mode)
    own.set_tasks(task.expand(2))
    theirs = SyncVectorEnv([lambda: TaskEnv(family, task)] * 2, autoreset_mode=mode)
    for ours, reference in zip(run(own, 4), run(theirs, 4), strict=True):
        assert len(ours) == len(reference)
        assert [part.dtype for part in ours[2:4]] == [part.dtype for part in reference[2:4]]
        for mine, other in zip(ours[2:4], reference[2:4], strict=True):
            np.testing.assert_array_equal(mine, other)
        shared = set(ours[-1]) & set(reference[-1])
        assert shared >= set(reference[-1]), (set(ours[-1]), set(reference[-1]))
        for name in shared:
            mine, other = ours[-1][name], reference[-1][name]
            assert type(mine) is type(other), name
            assert getattr(mine, "shape", None) == getattr(other, "shape", None), name


def test_the_step_after_an_end_starts_the_next_episode() -> None:
    env = worlds()
    ended = run(env)[HORIZON]
    fresh = run(worlds())[HORIZON + 1]
    assert ended[3].all()
    assert (fresh[1].tolist(), fresh[3].any()) == ([0.0] * WORLDS, False)
    assert fresh[0].tolist() == [[0.0, 0.0]] * WORLDS


def test_single_and_vector_environments_are_numpy_unless_torch_is_asked_for() -> None:
    assert isinstance(run(worlds())[1][0], np.ndarray)
    env = worlds(SAME_STEP, output="torch")
    assert isinstance(env, TaskVectorEnv)
    assert isinstance(env.reset(seed=0)[0], torch.Tensor)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"output": "jax"}, "numpy or torch, not 'jax'"),
        ({"device": "cuda"}, 'NumPy arrays are on the CPU, not on cuda; use output="torch"'),
        ({"autoreset_mode": "never"}, "autoreset_mode must be one of .*SameStep.*, not 'never'"),
    ],
)
def test_outputs_that_there_are_not_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        gymnasium.make_vec("metarl/Navigation2D-v0", num_envs=2, **settings)


@pytest.mark.parametrize("make", [gymnasium.make, gymnasium.make_vec])
def test_an_unknown_argument_is_the_type_error_that_libraries_retry_on(make: Any) -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'speed'; it has goal, horizon"):
        make("metarl/Navigation2D-v0", speed=1)


def test_the_spec_has_the_horizon_for_time_aware_observations() -> None:
    env = gymnasium.make("metarl/Navigation2D-v0", horizon=7)
    assert env.spec is not None
    assert env.spec.max_episode_steps == 7
    aware = TimeAwareObservation(env)
    aware.reset(seed=0)
    assert aware.step(np.zeros(2, np.float32))[0].shape == (3,)
    assert gymnasium.make(env.spec).unwrapped.family == env.unwrapped.family  # type: ignore[attr-defined]


def test_a_window_shows_what_is_rendered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Gymnasium says that it wraps the environment for the window
        env = gymnasium.make("metarl/GridNavi-v0", render_mode="human")
    env.reset(seed=0)
    env.step(1)
    window = env.screen_size  # type: ignore[attr-defined]
    env.close()
    assert window == env.unwrapped.render().shape[1::-1]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (5, r"5 is not in the action space Discrete\(5\)"),
        (-1, "-1 is not in the action space"),
        ([2], r"actions must have the shape \(\), not \(1,\)"),
    ],
)
def test_a_discrete_action_that_there_is_not_is_refused(action: Any, message: str) -> None:
    env = gymnasium.make("metarl/GridNavi-v0", disable_env_checker=True).unwrapped
    env.reset(seed=0)
    with pytest.raises(InputError, match=message):
        env.step(action)


@pytest.mark.parametrize("actions", [[0, 1, 7], [2], [[0, 1, 2]]])
def test_every_environment_takes_one_action_of_its_space(actions: Any) -> None:
    env = NumpyVectorEnv(make_family("gridnavi"), 3)
    env.reset(seed=0)
    with pytest.raises(InputError, match="action"):
        env.step(np.array(actions))


def test_actions_beyond_the_bounds_of_a_box_are_clipped() -> None:
    one, other = (NumpyVectorEnv(make_family("navigation-2d"), 2) for _ in range(2))
    for env in (one, other):
        env.reset(seed=0)
    bound = one.single_action_space.high[0]
    actions = np.full((2, 2), bound, np.float32)
    np.testing.assert_array_equal(one.step(actions)[0], other.step(5 * actions)[0])
