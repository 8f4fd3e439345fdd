import re
from pathlib import Path
from typing import Any

import pytest
import torch
from tensordict import TensorDict
from torch import Tensor

from metarl.agents.gradient.maml_trpo import MamlTrpo, MamlTrpoConfig
from metarl.devices.graphs import RECORDERS
from metarl.envs.locomotion.worlds import LocomotionDynamics
from metarl.errors import InputError, RunError
from metarl.families.family import make_family
from metarl.learning.learner import OpenState
from metarl.learning.policies import make_policy
from metarl.numerics.distributions import DiagonalGaussian
from metarl.numerics.params import per_task
from metarl.rollouts.rollout import Rollout
from metarl.sampling.sampler import Sampler
from metarl.sampling.session import Session
from tests.fakes import POISON, EchoFamily, NoisyActor, PolicyActor, ScriptedActor, echo_tasks, made_up_rollout

# Shapes of the echo family's collections: 3 tasks, 2 episodes, 4 steps, 2 action components.
SHAPE = (3, 2, 4, 2)


def collect(
    script: Tensor | None = None, lifetimes: list[int] | None = None, seed: int = 3, deterministic: bool = False
) -> Rollout:
    """Collect two episodes of the echo tasks 10, 20 and 30."""
    actor = NoisyActor() if script is None else ScriptedActor(script)
    tasks = echo_tasks([10, 20, 30], lifetimes)
    return Sampler(EchoFamily()).collect(actor, None, tasks, episodes=2, seed=seed, deterministic=deterministic)


def poisoned(task: int, episode: int, step: int, component: int, value: float = POISON) -> Tensor:
    script = torch.zeros(SHAPE)
    script[task, episode, step, component] = value
    return script


def tensors(rollout: Rollout) -> list[Tensor]:
    plain = [value for value in vars(rollout).values() if isinstance(value, Tensor)]
    return [*plain, *rollout.distribution.tensors()]


def same_bits(one: Rollout, other: Rollout) -> bool:
    return all(torch.equal(a, b) for a, b in zip(tensors(one), tensors(other), strict=True))


class CheckingActor(NoisyActor):
    """Knows each task's identity from its state, and finds it in every observation of that task."""

    def action_distribution(self, working: OpenState[TensorDict], observations: Tensor) -> DiagonalGaussian:
        assert torch.equal(observations[..., 0], working.state["identity"][:, None].expand(3, 2))
        return super().action_distribution(working, observations)


def test_task_rows_never_mix() -> None:
    tasks = echo_tasks([10, 20, 30])
    rollout = Sampler(EchoFamily()).collect(CheckingActor(), tasks, tasks, episodes=2, seed=0)
    named = torch.tensor([10.0, 20.0, 30.0]).view(3, 1, 1).expand(3, 2, 4)
    assert torch.equal(rollout.rewards, named)
    assert torch.equal(rollout.observations[..., 0], named)


def test_the_rollout_carries_its_tasks() -> None:
    assert collect().tasks["identity"].tolist() == [10.0, 20.0, 30.0]


def test_shapes_are_tasks_by_episodes_by_steps() -> None:
    rollout = collect()
    assert rollout.observations.shape == (3, 2, 4, 3)
    assert rollout.actions.shape == SHAPE
    assert rollout.final_observations.shape == (3, 2, 3)
    assert rollout.log_probs.shape == (3, 2, 4)


def test_distribution_tensors_are_spread_over_every_step() -> None:
    # The actor's log_std is [1, 1, 2].
    assert [tensor.shape for tensor in collect().distribution.tensors()] == [SHAPE, SHAPE]


def test_everything_is_float32() -> None:
    assert {tensor.dtype for tensor in tensors(collect())} == {torch.float32, torch.bool}


def test_observations_are_those_before_the_action() -> None:
    # The second component counts the steps taken.
    assert collect().observations[0, 0, :, 1].tolist() == [0.0, 1.0, 2.0, 3.0]


def test_the_actor_sees_what_the_rollout_holds() -> None:
    actor = ScriptedActor(torch.zeros(SHAPE))
    rollout = Sampler(EchoFamily()).collect(actor, None, echo_tasks([10, 20, 30]), episodes=2, seed=0)
    assert torch.equal(torch.stack(actor.seen, 2), rollout.observations)


def test_actions_are_kept_as_the_policy_drew_them() -> None:
    # Navigation takes moves of ±0.1; the rollout keeps the policy's own 5, so that its log-probability is right.
    family = make_family("navigation-2d", horizon=2)
    actor = ScriptedActor(torch.full((1, 1, 2, 2), 5.0))
    rollout = Sampler(family).collect(actor, None, family.make_task({"goal": [-0.5, -0.5]}), episodes=1, seed=0)
    assert rollout.actions.unique().tolist() == [5.0]
    torch.testing.assert_close(rollout.observations[0, 0, 1], torch.tensor([0.1, 0.1]))


def test_log_probs_are_those_of_the_actions() -> None:
    rollout = collect()
    assert torch.equal(rollout.log_probs, rollout.distribution.log_prob(rollout.actions))


def test_the_same_seed_gives_the_same_rollout() -> None:
    assert same_bits(collect(seed=3), collect(seed=3))


def test_another_seed_gives_other_actions() -> None:
    assert not torch.equal(collect(seed=3).actions, collect(seed=4).actions)


def test_another_seed_gives_other_episodes() -> None:
    # The third component is drawn by the environment.
    assert not torch.equal(collect(seed=3).observations[..., 2], collect(seed=4).observations[..., 2])


def test_episodes_of_a_task_differ() -> None:
    rollout = collect()
    assert not torch.equal(rollout.actions[:, 0], rollout.actions[:, 1])
    assert not torch.equal(rollout.observations[:, 0, 0, 2], rollout.observations[:, 1, 0, 2])


def test_environments_keep_nothing_from_an_earlier_collection() -> None:
    family = make_family("half-cheetah-vel", horizon=5)
    tasks = family.sample_tasks(2, torch.Generator().manual_seed(0))
    sampler = Sampler(family)
    first, _, again = (sampler.collect(NoisyActor(6), None, tasks, episodes=2, seed=seed) for seed in (1, 2, 1))
    assert same_bits(first, again)


def test_the_number_of_episodes_may_change() -> None:
    sampler, tasks = Sampler(EchoFamily()), echo_tasks([10, 20, 30])
    rollouts = [sampler.collect(NoisyActor(), None, tasks, count, seed=0) for count in (1, 3, 1)]
    assert [rollout.rewards.shape[1] for rollout in rollouts] == [1, 3, 1]


def test_collecting_leaves_the_global_stream_alone() -> None:
    before = torch.get_rng_state()
    collect()
    assert torch.equal(torch.get_rng_state(), before)


def test_deterministic_actions_are_the_mode() -> None:
    # The actor's mean.
    assert collect(deterministic=True).actions.unique().tolist() == [0.5]


def test_valid_ends_with_the_step_that_ended_the_episode() -> None:
    valid = collect(lifetimes=[1, 3, 9]).valid
    assert valid[:, 1].int().tolist() == [[1, 0, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]


def test_terminated_is_marked_once() -> None:
    # A world that is stepped after its end stays terminated, but the rollout must not contain that.
    terminated = collect(lifetimes=[1, 3, 9]).terminated
    assert terminated[:, 0].int().tolist() == [[1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]


def test_truncated_is_marked_at_the_horizon_of_episodes_that_live() -> None:
    truncated = collect(lifetimes=[1, 4, 9]).truncated
    assert truncated[:, 0].int().tolist() == [[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1]]


def test_final_observations_are_those_at_the_end_of_the_episode() -> None:
    # Steps taken when the episode ended.
    assert collect(lifetimes=[1, 3, 9]).final_observations[..., 1].tolist() == [[1.0, 1.0], [3.0, 3.0], [4.0, 4.0]]


def test_zeros_come_after_the_end() -> None:
    rollout = collect(lifetimes=[1, 3, 9])
    per_step = [tensor for tensor in tensors(rollout) if tensor.shape[:3] == SHAPE[:3] and tensor.ndim == 4]
    assert len(per_step) == 4  # observations, actions, and the distribution's two
    assert not any(tensor[~rollout.valid].any() for tensor in [*per_step, rollout.rewards])


def test_env_steps_counts_only_steps_inside_episodes() -> None:
    # Two episodes each of 1, 3 and 4 steps.
    assert collect(lifetimes=[1, 3, 9]).env_steps == 16


def test_episode_returns_stop_at_the_end() -> None:
    # Identity times length.
    assert collect(lifetimes=[1, 3, 9]).episode_returns()[:, 0].tolist() == [10.0, 60.0, 120.0]


def test_nan_rewards_are_named() -> None:
    where = "echo, task 1 (identity=20.0, lifetime=1000), episode 1, step 2, seed 3"
    with pytest.raises(RunError, match=re.escape(f"rewards became NaN or infinite in {where}")):
        collect(poisoned(task=1, episode=1, step=2, component=0))


def test_nan_observations_are_named() -> None:
    # The actor passes the NaN on to its actions; the observations had it first. Poison taken at step 1 shows
    # before step 2.
    where = "echo, task 2 (identity=30.0, lifetime=1000), episode 0, step 2, seed 3"
    with pytest.raises(RunError, match=re.escape(f"observations became NaN or infinite in {where}")):
        collect(poisoned(task=2, episode=0, step=1, component=1))


def test_a_nan_in_the_final_observation_is_named() -> None:
    # Nothing is done at a final observation, but the value of an episode that was cut off is read from it.
    with pytest.raises(RunError, match=r"observations became NaN or infinite in echo, task 0 .*episode 1"):
        collect(poisoned(task=0, episode=1, step=3, component=1))


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_nan_actions_are_named(value: float) -> None:
    where = "echo, task 0 (identity=10.0, lifetime=1000), episode 1, step 3, seed 3"
    with pytest.raises(RunError, match=re.escape(f"actions became NaN or infinite in {where}")):
        collect(poisoned(task=0, episode=1, step=3, component=0, value=value))


def test_the_earliest_step_is_named() -> None:
    script = poisoned(task=2, episode=1, step=1, component=0)
    script[0, 0, 3, 0] = torch.nan
    with pytest.raises(RunError, match=r"rewards became NaN.* task 2 .*step 1"):
        collect(script)


def test_a_nan_after_an_end_is_no_failure() -> None:
    rollout = collect(poisoned(task=0, episode=0, step=2, component=0), lifetimes=[1, 9, 9])
    assert rollout.env_steps == 18


def test_a_nan_after_an_end_never_reaches_the_returns() -> None:
    rollout = collect(poisoned(task=0, episode=0, step=2, component=0), lifetimes=[1, 9, 9])
    assert rollout.episode_returns()[0].tolist() == [10.0, 10.0]


def test_an_unstable_simulation_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # MuJoCo writes MUJOCO_LOG.TXT here.
    family = make_family("half-cheetah-vel", horizon=4)
    tasks = torch.cat([family.make_task({"velocity": value}) for value in (0.5, 1.5, 2.5)])  # type: ignore[arg-type]
    sampler = Sampler(family)

    def throw(step: int) -> None:
        if step == 1:
            sampler._env(6)._dynamics.simulation.qvel[3] = 1e12  # type: ignore[attr-defined]

    where = "half-cheetah-vel, task 1 (velocity=1.5), episode 1, seed 3"
    with pytest.raises(RunError, match=re.escape(f"simulations became unstable, the first in {where}")):
        sampler.collect(NoisyActor(6, throw), None, tasks, episodes=2, seed=3)


def test_a_sampler_recovers_from_an_unstable_simulation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    family = make_family("half-cheetah-vel", horizon=3)
    tasks, sampler = family.make_task({"velocity": 1.0}), Sampler(family)
    expected = sampler.collect(NoisyActor(6), None, tasks, episodes=2, seed=3)

    def throw(step: int) -> None:
        sampler._env(2)._dynamics.simulation.qvel[1] = 1e12  # type: ignore[attr-defined]

    with pytest.raises(RunError, match="unstable"):
        sampler.collect(NoisyActor(6, throw), None, tasks, episodes=2, seed=3)
    assert same_bits(sampler.collect(NoisyActor(6), None, tasks, episodes=2, seed=3), expected)


def test_torch_runs_one_thread_inside_and_the_old_number_after() -> None:
    before, inside = torch.get_num_threads(), []
    torch.set_num_threads(2)
    try:
        tasks = echo_tasks([10, 20, 30])
        actor = NoisyActor(before=lambda step: inside.append(torch.get_num_threads()))
        Sampler(EchoFamily()).collect(actor, None, tasks, episodes=2, seed=0)
        assert inside == [1] * 4
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_threads_are_restored_after_a_failure() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(RunError):
            collect(poisoned(0, 0, 0, 0))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_collecting_builds_no_graph() -> None:
    family = make_family("gridnavi", horizon=3)
    policy = make_policy(family.observation_space, family.action_space, (4,))
    params = per_task(policy.init_params(torch.Generator().manual_seed(0)), 2).apply(lambda x: x.requires_grad_())
    tasks = family.sample_tasks(2, torch.Generator().manual_seed(0))
    with torch.enable_grad():
        rollout = Sampler(family).collect(PolicyActor(policy), params, tasks, episodes=1, seed=0)
    assert not any(tensor.requires_grad for tensor in tensors(rollout))


def test_discrete_actions_keep_their_type_and_shape() -> None:
    family = make_family("gridnavi", horizon=3)
    policy = make_policy(family.observation_space, family.action_space, (4,))
    params = per_task(policy.init_params(torch.Generator().manual_seed(0)), 2)
    tasks = family.sample_tasks(2, torch.Generator().manual_seed(0))
    actions = Sampler(family).collect(PolicyActor(policy), params, tasks, episodes=5, seed=0).actions
    assert actions.shape == (2, 5, 3)
    assert actions.dtype == torch.int64


def test_the_fake_rollout_has_the_shapes_of_a_real_one() -> None:
    # Other tests rely on it.
    fake, real = made_up_rollout(3, 2, 4), collect()
    assert all(a.shape[:3] == b.shape[:3] for a, b in zip(tensors(fake), tensors(real), strict=True) if a.ndim > 3)


def test_a_collection_is_over_when_every_episode_is() -> None:
    actor, tasks = NoisyActor(), echo_tasks([10, 20, 30], [1, 2, 1])
    rollout = Sampler(EchoFamily()).collect(actor, None, tasks, episodes=2, seed=0)
    assert actor.steps == 2
    assert rollout.valid.sum(-1).tolist() == [[1, 1], [2, 2], [1, 1]]
    assert rollout.valid.shape == (3, 2, 2)
    assert rollout.final_observations[..., 1].tolist() == [[1, 1], [2, 2], [1, 1]]
    assert not rollout.observations[~rollout.valid].any()


def test_stopping_early_changes_nothing() -> None:
    # The third task goes on to the horizon in one of the two collections.
    short, full = collect(lifetimes=[1, 2, 2]), collect(lifetimes=[1, 2, 4])
    assert torch.equal(short.final_observations[:2], full.final_observations[:2])
    for name in ("observations", "actions", "rewards", "terminated", "truncated", "valid", "log_probs"):
        assert torch.equal(getattr(short, name)[:2], getattr(full, name)[:2, :, :2])


class ByHand:
    """Does what a replayed graph does: the same operations on the same memory, the step's number being a tensor."""

    def __init__(self, work: Any, generators: list[torch.Generator]) -> None:
        assert len(generators) == 2
        self.replay = work


@pytest.mark.parametrize("name", ["navigation-2d", "gridnavi", "half-cheetah-vel", "hopper-vel"])
def test_the_captured_data_flow_gives_the_same_rollout(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # The graph itself needs CUDA: tests/test_gpu.py.
    family = make_family(name, horizon=6)
    policy = make_policy(family.observation_space, family.action_space, (8,))
    state = per_task(policy.init_params(torch.Generator().manual_seed(0)), 3)
    tasks = family.sample_tasks(3, torch.Generator().manual_seed(0))
    eager = Sampler(family).collect(PolicyActor(policy), state, tasks, episodes=2, seed=1)
    monkeypatch.setitem(RECORDERS, "cpu", ByHand)
    monkeypatch.setattr(LocomotionDynamics, "capturable", True)
    captured = Sampler(family).collect(PolicyActor(policy), state, tasks, episodes=2, seed=1)
    steps = eager.valid.shape[2]
    assert torch.equal(captured.valid.sum(-1), eager.valid.sum(-1))
    assert same_bits(eager, captured.map(lambda value: value[:, :, :steps] if value.shape[2:3] == (6,) else value))


class RememberingScript(NoisyActor):
    """Sums up rewards in its open state, and keeps all calls in ``opened`` and ``noted``."""

    def __init__(self) -> None:
        super().__init__()
        self.opened: list[tuple[int, bool]] = []
        self.noted: list[tuple[Tensor, Tensor, Tensor]] = []

    def open(
        self, state: dict[str, Tensor], episodes: int, generator: torch.Generator, deterministic: bool = False
    ) -> dict[str, Tensor]:
        self.opened.append((episodes, deterministic))
        return {"sum": state["sum"][:, None].repeat(1, episodes)}

    def action_distribution(self, state: dict[str, Tensor], observations: Tensor) -> DiagonalGaussian:
        assert torch.equal(state["sum"], observations[..., 0] * self.steps)  # its rewards are the task's identity
        return super().action_distribution(state, observations)

    def observe(self, working: dict[str, Tensor], actions: Tensor, rewards: Tensor, ended: Tensor) -> None:
        self.noted.append((actions.clone(), rewards.clone(), ended.clone()))
        working["sum"] += rewards


def remembering(deterministic: bool = False) -> tuple[RememberingScript, dict[str, Tensor], Rollout]:
    actor, state = RememberingScript(), {"sum": torch.zeros(3)}
    sampler, tasks = Sampler(EchoFamily()), echo_tasks([10, 20, 30])
    return actor, state, sampler.collect(actor, state, tasks, episodes=2, seed=3, deterministic=deterministic)


def test_an_actor_observes_every_action_and_reward() -> None:
    # And acts by what it has observed so far: the actor itself checks that.
    actor, _, rollout = remembering()
    assert len(actor.noted) == 4
    assert torch.equal(torch.stack([actions for actions, *_ in actor.noted], 2), rollout.actions)
    assert torch.equal(torch.stack([rewards for _, rewards, _ in actor.noted], 2), rollout.rewards)


def test_it_observes_each_end_once() -> None:
    actor, lifetimes = RememberingScript(), [1, 3, 9]
    Sampler(EchoFamily()).collect(actor, {"sum": torch.zeros(3)}, echo_tasks([10, 20, 30], lifetimes), 1, seed=3)
    ended = torch.stack([ended for *_, ended in actor.noted], 2)
    assert ended[:, 0].int().tolist() == [[1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]


def test_what_it_remembers_is_in_a_copy_of_the_state() -> None:
    assert remembering()[1]["sum"].tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("deterministic", [False, True])
def test_a_working_copy_is_opened_once_for_a_collection(deterministic: bool) -> None:
    assert remembering(deterministic)[0].opened == [(2, deterministic)]


def test_remembering_changes_nothing_in_the_rollout() -> None:
    assert same_bits(remembering()[2], collect(seed=3))


def test_a_watcher_sees_the_worlds_after_their_reset_and_after_each_step() -> None:
    seen: list[Tensor] = []
    tasks = echo_tasks([10, 20, 30])
    rollout = Sampler(EchoFamily()).collect(
        NoisyActor(), None, tasks, episodes=2, seed=3, watch=lambda env: seen.append(env._dynamics.observe())
    )
    assert len(seen) == 5
    expected = torch.cat([rollout.observations, rollout.final_observations.unsqueeze(2)], 2)
    assert torch.equal(torch.stack(seen, 1).view_as(expected), expected)


def test_watching_changes_nothing() -> None:
    tasks = echo_tasks([10, 20, 30])
    watched = Sampler(EchoFamily()).collect(NoisyActor(), None, tasks, 2, seed=3, watch=lambda env: None)
    assert same_bits(watched, collect(seed=3))


def test_a_session_is_run_as_a_state_is_collected() -> None:
    family = make_family("gridnavi", horizon=5)
    learner = MamlTrpo(family, MamlTrpoConfig(hidden_sizes=(8,)), 0, torch.device("cpu"))
    sampler, tasks = Sampler(family), family.sample_tasks(2, torch.Generator().manual_seed(0))
    session = sampler.session(learner, tasks, episodes=3)
    first = sampler.run(session, seed=4)
    assert same_bits(first, sampler.collect(learner, learner.begin(2), tasks, 3, seed=4))
    session.adapt()
    adapted = learner.adapt(learner.begin(2), first)
    assert same_bits(sampler.run(session, seed=5), sampler.collect(learner, adapted, tasks, 3, seed=5))


def test_a_session_without_its_tasks_parameters_is_refused() -> None:
    family = make_family("gridnavi", horizon=5)
    learner = MamlTrpo(family, MamlTrpoConfig(hidden_sizes=(8,)), 0, torch.device("cpu"))
    with pytest.raises(InputError, match=r"needs the tasks' parameters: pass them to session\.begin"):
        Sampler(family).run(Session(learner, family, 2), seed=0)


def test_numbers_whose_sum_is_infinite_are_fine() -> None:
    script = torch.zeros(SHAPE)
    script[0, 0] = 3e38
    assert collect(script).actions.sum().isinf()
