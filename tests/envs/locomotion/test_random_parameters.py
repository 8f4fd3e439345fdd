import pytest
import torch
from gymnasium.vector import AutoresetMode

from metarl.envs.locomotion.random_parameters import BASES, HopperRandParams, RandomParameters, Walker2DRandParams
from metarl.envs.simulation.batched import gymnasium_model
from metarl.errors import InputError
from metarl.worlds.vector_env import TaskVectorEnv
from tests.envs.robots import dynamics, place, worlds

FAMILIES: list[RandomParameters] = [HopperRandParams(), Walker2DRandParams()]
family_of = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)


def stream() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@family_of
def test_factors_are_log_uniform(family: RandomParameters) -> None:
    tasks = family.sample_tasks(500, stream())
    for name, base in BASES.items():
        exponents = tasks[name].double().log() / torch.tensor(base).double().log()
        assert exponents.abs().max() <= 3 + 1e-6
        assert exponents.abs().max() > 2.9
        # A uniform variable on [-3, 3] has deviation √3; standard errors are below 2 %.
        assert exponents.mean().item() == pytest.approx(0, abs=0.15)
        assert exponents.std().item() == pytest.approx(3**0.5, rel=0.05)


@family_of
def test_every_element_is_drawn_for_itself(family: RandomParameters) -> None:
    tasks = family.sample_tasks(2, stream())
    for name in BASES:
        assert tasks[name].unique().numel() == tasks[name].numel()


@family_of
def test_the_shared_model_stays(family: RandomParameters) -> None:
    before = {name: getattr(family.model, name).copy() for name in BASES}
    env = TaskVectorEnv(family, 3, autoreset_mode=AutoresetMode.DISABLED)
    for seed in range(3):
        env.reset(seed=seed)
        env.step(torch.zeros(3, family.model.nu))
    assert all((getattr(family.model, name) == value).all() for name, value in before.items())


@family_of
def test_factors_do_not_compound_over_episodes(family: RandomParameters) -> None:
    tasks = family.sample_tasks(2, stream())
    fresh, used = worlds(family, tasks), worlds(family, tasks)
    for _ in range(3):
        used.reset()
    for env in (fresh, used):
        place(env, torch.from_numpy(family.model.qpos0), torch.zeros(family.model.nv))
        env.step(torch.full((2, family.model.nu), 0.5))
    assert torch.equal(dynamics(fresh).simulation.qpos, dynamics(used).simulation.qpos)


@family_of
@pytest.mark.parametrize("name", BASES)
def test_each_field_changes_the_motion(family: RandomParameters, name: str) -> None:
    tasks = family.sample_tasks(1, stream())
    plain, heavy = (family.make_task({key: torch.ones_like(tasks[key][0]).numpy() for key in BASES}) for _ in range(2))
    heavy[name] = tasks[name]
    moved = []
    sliding = torch.zeros(family.model.nv)
    sliding[0] = 3.0
    for task in (plain, heavy):
        env = worlds(family, task)
        place(env, torch.from_numpy(family.model.qpos0), sliding)
        for _ in range(20):
            env.step(torch.full((1, family.model.nu), 0.5))
        moved.append(dynamics(env).simulation.qpos.clone())
    assert not torch.equal(*moved)


@family_of
def test_worlds_move_by_their_own_task(family: RandomParameters) -> None:
    tasks = family.sample_tasks(3, stream())
    together = worlds(family, tasks)
    place(together, torch.from_numpy(family.model.qpos0), torch.zeros(family.model.nv))
    together.step(torch.full((3, family.model.nu), 0.5))
    for row in range(3):
        alone = worlds(family, tasks[row : row + 1])  # type: ignore[arg-type]
        place(alone, torch.from_numpy(family.model.qpos0), torch.zeros(family.model.nv))
        alone.step(torch.full((1, family.model.nu), 0.5))
        assert torch.equal(dynamics(alone).simulation.qpos[0], dynamics(together).simulation.qpos[row])


@family_of
def test_the_reward(family: RandomParameters) -> None:
    actions = torch.ones(1, family.model.nu)
    terms = family.reward_terms(torch.tensor([[1.5]]), torch.zeros(1, 6), actions, family.sample_tasks(1, stream()))
    rewards = sum(value.item() for key, value in terms.items() if key.startswith("reward_"))
    assert rewards == pytest.approx(1.5 + 1 - 0.001 * family.model.nu)


def test_steps_last_as_in_published_code() -> None:
    for family in (HopperRandParams(), Walker2DRandParams()):
        assert (family.frame_skip, family.model.opt.timestep) == (4, 0.004)
    assert gymnasium_model(HopperRandParams.robot.model_name).opt.timestep == 0.002  # which others share


def test_a_scale_of_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="log_scale must be positive, not 0"):
        HopperRandParams(log_scale=0)
