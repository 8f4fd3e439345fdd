import copy
import json
import math
import warnings
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from metarl.agents.gradient.adaptation import Episodes
from metarl.agents.gradient.reptile import Inner, Reptile, ReptileConfig
from metarl.errors import InputError
from metarl.evaluation.evaluate import adaptation_curve
from metarl.learning.baselines import estimate_advantages
from metarl.numerics.params import flatten, names, unflatten
from metarl.rollouts.rollout import Rollout
from metarl.run.config import RunConfig, TrainConfig
from metarl.sampling.sampler import Sampler
from tests.agents.by_hand import TASKS, iteration, refuses_nan
from tests.runs import one_task

SETTINGS: list[Any] = [
    pytest.param("navigation-2d", {}, id="gaussian"),
    pytest.param("gridnavi", {}, id="categorical"),
    pytest.param("navigation-2d", {"inner_optimizer": "sgd", "inner_lr": 0.5}, id="sgd"),
    pytest.param("navigation-2d", {"inner_steps": 3, "outer_lr": 0.3}, id="three steps"),
    pytest.param("navigation-2d", {"inner_epochs": 1}, id="policy gradient"),
    pytest.param("navigation-2d", {"clip_range": 0.01, "inner_epochs": 4}, id="tight clip"),
]
every_setting = pytest.mark.parametrize(("family", "settings"), SETTINGS)


def made(family: str = "navigation-2d", **settings: Any) -> tuple[Reptile, list[Rollout]]:
    """Return a learner and the k rollouts of its first iteration."""
    return iteration("reptile", family, **{"inner_lr": 0.05, "inner_epochs": 3, **settings})


class Alone:
    """One task's inner loop on un-stacked parameters: PPO by an optimiser of torch's own."""

    def __init__(self, learner: Reptile, **settings: Any) -> None:
        self.learner, self.config = learner, replace(learner.config, **settings)
        self.params = torch.nn.ParameterDict({name: learner.params[name].clone() for name in names(learner.params)})
        made_of = self.params.parameters()
        self.optimizer: torch.optim.Optimizer = (
            torch.optim.Adam(made_of, self.config.inner_lr, betas=(0.0, 0.999))
            if self.config.inner_optimizer == "adam"
            else torch.optim.SGD(made_of, self.config.inner_lr)
        )

    @property
    def vector(self) -> Tensor:
        return torch.cat([self.params[name].detach().reshape(-1) for name in sorted(self.params)])

    def learn(self, rollouts: Iterable[Rollout]) -> "Alone":
        """Learn from rollouts of one task ``[1]``, ``inner_epochs`` steps from each."""
        config, policy = self.config, self.learner.policy
        for rollout in rollouts:
            inputs, final = policy.features(rollout.observations), policy.features(rollout.final_observations)
            gain = estimate_advantages(rollout, inputs, final, config.discount, config.gae_lambda)[rollout.valid]
            for _ in range(config.inner_epochs):
                params = unflatten(
                    torch.cat([self.params[name].view(-1) for name in sorted(self.params)]), self.learner.params
                )
                log_probs = policy.distribution(params.unsqueeze(0), rollout.observations).log_prob(rollout.actions)
                ratio = (log_probs - rollout.log_probs)[rollout.valid].exp()
                worst = torch.stack(
                    [ratio * gain, ratio.clamp(1 - config.clip_range, 1 + config.clip_range) * gain]
                ).amin(0)
                self.optimizer.zero_grad()
                (-worst.mean()).backward()
                self.optimizer.step()
        return self


def ends(learner: Reptile, rollouts: list[Rollout], **settings: Any) -> Tensor:
    """Return where each task's own loop leads, ``[N, P]``."""
    return torch.stack(
        [Alone(learner, **settings).learn(one_task(each, task) for each in rollouts).vector for task in range(TASKS)]
    )


def vectors(state: Inner) -> Tensor:
    """Return each task's parameters, ``[N, P]``."""
    return torch.stack([flatten(state.params[task]) for task in range(TASKS)])


@every_setting
def test_an_update_moves_towards_the_mean_of_where_tasks_alone_end(family: str, settings: dict[str, Any]) -> None:
    learner, rollouts = made(family, **settings)
    start = flatten(learner.params).clone()
    assert len(rollouts) == learner.config.inner_steps
    move = ends(learner, rollouts).mean(0) - start
    metrics = learner.update(rollouts)
    expected = start + learner.config.outer_lr * move
    torch.testing.assert_close(flatten(learner.params), expected, rtol=1e-9, atol=1e-11)
    del metrics["adaptation_kl"]  # tests/agents/gradient/test_adaptation_kl.py
    assert metrics == {"outer_lr": learner.config.outer_lr, "move_norm": pytest.approx(move.norm().item(), rel=1e-9)}


@every_setting
def test_adaptation_walks_the_same_paths(family: str, settings: dict[str, Any]) -> None:
    learner, rollouts = made(family, **settings)
    state = learner.begin(TASKS)
    for count in range(1, len(rollouts) + 1):
        state = learner.adapt(state, rollouts[count - 1])
        torch.testing.assert_close(vectors(state), ends(learner, rollouts[:count]), rtol=1e-9, atol=1e-11)


def test_every_rollout_is_collected_by_where_the_last_one_led() -> None:
    learner, rollouts = made(inner_steps=3)
    state = learner.begin(TASKS)
    for rollout in rollouts:
        log_probs = learner.policy.distribution(state.params, rollout.observations).log_prob(rollout.actions)
        torch.testing.assert_close(log_probs[rollout.valid], rollout.log_probs[rollout.valid], rtol=0, atol=1e-9)
        state = learner.adapt(state, rollout)


@pytest.mark.parametrize("inner_steps", [2, 5])
def test_the_last_inner_step_is_left_to_the_update(inner_steps: int) -> None:
    learner, rollouts = made(inner_steps=inner_steps)
    assert learner.inner_steps == inner_steps - 1
    assert len(rollouts) == inner_steps


def test_of_one_inner_step_it_says_that_it_is_joint_training() -> None:
    with pytest.warns(UserWarning, match="inner_steps 1 is joint training, not meta-learning; use 2 or more"):
        made(inner_steps=1)


def test_of_two_inner_steps_it_says_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made(inner_steps=2)


@pytest.mark.filterwarnings("ignore:reptile with inner_steps 1")
def test_with_one_step_of_sgd_it_climbs_the_mean_of_the_tasks_objectives() -> None:
    # phi + eps * mean_i(phi + a g_i - phi) = phi + eps a mean_i g_i, with g_i the policy gradient of task i.
    settings = {"inner_steps": 1, "inner_epochs": 1, "inner_optimizer": "sgd", "inner_lr": 0.4, "outer_lr": 0.25}
    learner, (rollout,) = made(**settings)
    start, episodes = flatten(learner.params), Episodes.of(rollout, learner.policy, 0.99, 1.0)
    point = start.clone().requires_grad_()
    params = unflatten(point, learner.params).expand(TASKS)
    log_probs = learner.policy.distribution(params, rollout.observations).log_prob(rollout.actions)
    objective = sum((log_probs[task] * episodes.advantages[task])[rollout.valid[task]].mean() for task in range(TASKS))
    assert isinstance(objective, Tensor)
    (slope,) = torch.autograd.grad(objective / TASKS, point)
    learner.update([rollout])
    torch.testing.assert_close(flatten(learner.params), start + 0.25 * 0.4 * slope, rtol=1e-9, atol=1e-11)


def test_two_steps_are_more_than_joint_training() -> None:
    # The second step's slopes are those at each task's own parameters.
    learner, rollouts = made(inner_optimizer="sgd", inner_lr=0.5, inner_epochs=1)
    start = flatten(learner.params).clone()
    joint = sum((ends(learner, [rollout]).mean(0) - start for rollout in rollouts), torch.zeros_like(start))
    learner.update(rollouts)
    move = flatten(learner.params) - start
    assert (move - joint).norm() > 0.05 * move.norm()


def test_adam_and_sgd_lead_elsewhere() -> None:
    (adam, rollouts), (sgd, _) = (made(inner_optimizer=each) for each in ("adam", "sgd"))
    for learner in (adam, sgd):
        learner.update(rollouts)
    assert not torch.equal(flatten(adam.params), flatten(sgd.params))


def test_adams_first_step_has_the_same_length_for_every_number() -> None:
    # Without momentum, and bias-corrected: lr * g / (sqrt(g^2) + 1e-8) = +-lr.
    learner, rollouts = made(inner_epochs=1, inner_lr=0.02)
    start = learner.begin(TASKS)
    moved = flatten(learner.adapt(start, rollouts[0]).params - start.params)
    torch.testing.assert_close(moved.abs(), torch.full_like(moved, 0.02), rtol=1e-4, atol=0)


def test_adam_has_no_momentum() -> None:
    # beta1 = 0: the second step is g2 / sqrt((0.999 g1^2 + g2^2) / 1.999), whatever direction the first one had.
    learner, rollouts = made(inner_epochs=1, inner_lr=0.02)
    slopes = []
    state = learner.begin(TASKS)
    for rollout in rollouts:
        params = {name: state.params[name].clone().requires_grad_() for name in names(state.params)}
        episodes = Episodes.of(rollout, learner.policy, 0.99, 1.0)
        objective = learner.objective(type(state.params)(params, [TASKS]), episodes).sum()
        slopes.append(torch.autograd.grad(objective, params["weight_0"])[0])
        before, state = state, learner.adapt(state, rollout)
    expected = 0.02 * slopes[1] / ((0.999 * slopes[0] ** 2 + slopes[1] ** 2) / 1.999).sqrt()
    torch.testing.assert_close(state.params["weight_0"] - before.params["weight_0"], expected, rtol=1e-4, atol=1e-8)


def test_moments_last_from_one_adaptation_of_a_task_to_the_next() -> None:
    learner, rollouts = made()
    first = learner.adapt(learner.begin(TASKS), rollouts[0])
    kept = learner.adapt(first, rollouts[1])
    forgotten = learner.adapt(replace(first, moments=None), rollouts[1])
    assert first.moments is not None
    assert kept.moments is not None
    assert [{int(each["step"]) for each in state.moments["state"].values()} for state in (first, kept)] == [{3}, {6}]
    assert not torch.equal(flatten(kept.params), flatten(forgotten.params))


def test_every_beginning_is_without_moments() -> None:
    learner, rollouts = made()
    assert learner.begin(TASKS).moments is None
    learner.update(rollouts)
    assert learner.begin(TASKS).moments is None


def test_an_earlier_update_does_not_reach_into_the_next_ones_optimisers() -> None:
    learner, rollouts = made()
    learner.update(rollouts)
    fresh, _ = made()
    fresh.load_state_dict(learner.state_dict())
    for each in (learner, fresh):
        each.update(rollouts)
    assert torch.equal(flatten(learner.params), flatten(fresh.params))


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_adapting_leaves_the_given_state_as_it_was(optimizer: str) -> None:
    learner, rollouts = made(inner_optimizer=optimizer)
    state = learner.adapt(learner.begin(TASKS), rollouts[0])
    params, moments = vectors(state).clone(), copy.deepcopy(state.moments)
    one, other = (learner.adapt(state, rollouts[1]) for _ in range(2))
    assert torch.equal(vectors(state), params)
    assert str(state.moments) == str(moments)
    assert torch.equal(vectors(one), vectors(other))


def test_adapting_leaves_the_meta_parameters_as_they_were() -> None:
    learner, rollouts = made()
    before = flatten(learner.params).clone()
    learner.adapt(learner.begin(TASKS), rollouts[0])
    assert torch.equal(flatten(learner.params), before)


def test_a_begun_state_stays_as_it_was_when_the_learner_learns_on() -> None:
    learner, rollouts = made()
    state = learner.begin(TASKS)
    before = vectors(state).clone()
    learner.update(rollouts)
    assert torch.equal(vectors(state), before)


def test_adapted_parameters_hold_no_graph() -> None:
    learner, rollouts = made()
    assert not flatten(learner.adapt(learner.begin(TASKS), rollouts[0]).params).requires_grad


def test_a_tasks_rewards_adapt_no_other_task() -> None:
    learner, rollouts = made()
    rewards = rollouts[0].rewards.clone()
    rewards[2] = 5 * rewards[2].square()
    one, other = (
        learner.adapt(learner.begin(TASKS), each) for each in (rollouts[0], replace(rollouts[0], rewards=rewards))
    )
    assert [torch.equal(*rows) for rows in zip(vectors(one), vectors(other), strict=True)] == [True, True, False]


@pytest.mark.parametrize(("ratio", "good", "bad"), [(2.0, 1.2, 2.0), (0.5, 0.5, 0.8), (1.1, 1.1, 1.1)])
def test_the_objective_is_ppos(ratio: float, good: float, bad: float) -> None:
    # With clip 0.2: actions that are 2 times likelier now count 1.2 A for A > 0, and 2 A for A < 0.
    learner, rollouts = made(clip_range=0.2)
    rollout = replace(rollouts[0], log_probs=rollouts[0].log_probs - math.log(ratio))
    episodes = Episodes.of(rollout, learner.policy, 0.99, 1.0)
    counted = good * episodes.advantages.clamp(min=0) + bad * episodes.advantages.clamp(max=0)
    expected = torch.stack([row[valid].mean() for row, valid in zip(counted, rollout.valid, strict=True)])
    found = learner.objective(learner.begin(TASKS).params, episodes)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_the_objective_climbs_along_the_inner_loop() -> None:
    learner, rollouts = made(inner_lr=0.01, inner_epochs=5)
    episodes = Episodes.of(rollouts[0], learner.policy, 0.99, 1.0)
    adapted = learner.adapt(learner.begin(TASKS), rollouts[0]).params
    assert (learner.objective(adapted, episodes) > learner.objective(learner.begin(TASKS).params, episodes)).all()


@pytest.mark.parametrize(
    ("updates", "expected"), [(0, 0.8), (1, 0.72), (5, 0.4), (9, 0.08), (10, 0.0), (11, 0.0), (1000, 0.0)]
)
def test_the_outer_step_falls_linearly_to_zero(updates: int, expected: float) -> None:
    learner, _ = made(outer_lr=0.8, anneal_iterations=10)
    learner.updates = updates
    assert learner.step_share == pytest.approx(expected, abs=1e-12)


def test_without_annealing_the_outer_step_stays() -> None:
    learner, _ = made(outer_lr=0.8)
    learner.updates = 10_000
    assert learner.step_share == 0.8


def test_updates_take_the_step_that_is_due() -> None:
    # 0.8, then 0.4, then nothing any more.
    learner, rollouts = made(outer_lr=0.8, anneal_iterations=2)
    for share in (0.8, 0.4, 0.0):
        start = flatten(learner.params).clone()
        expected = start + share * (ends(learner, rollouts).mean(0) - start)
        assert learner.update(rollouts)["outer_lr"] == pytest.approx(share)
        torch.testing.assert_close(flatten(learner.params), expected, rtol=1e-9, atol=1e-11)
    assert learner.updates == 3


def test_a_loaded_learner_knows_its_parameters_and_its_updates() -> None:
    learner, rollouts = made(anneal_iterations=10)
    for _ in range(3):
        learner.update(rollouts)
    other, _ = made(seed=1, anneal_iterations=10)
    other.load_state_dict(learner.state_dict())
    assert torch.equal(flatten(other.params), flatten(learner.params))
    assert other.updates == 3
    assert other.step_share == learner.step_share == pytest.approx(0.7)


def test_two_half_runs_are_one_run_to_the_bit() -> None:
    (whole, rollouts), (first, _), (second, _) = (made(anneal_iterations=5) for _ in range(3))
    for _ in range(4):
        whole.update(rollouts)
    for _ in range(2):
        first.update(rollouts)
    second.load_state_dict(first.state_dict())
    for _ in range(2):
        second.update(rollouts)
    assert torch.equal(flatten(second.params), flatten(whole.params))


def test_a_saved_state_stays_as_it_was_when_the_learner_learns_on() -> None:
    learner, rollouts = made()
    state = learner.state_dict()
    before = copy.deepcopy(state["params"])
    learner.update(rollouts)
    assert state["updates"] == 0
    assert all(torch.equal(state["params"][name], value) for name, value in before.items())


def test_parameters_of_another_shape_are_refused() -> None:
    (small, _), (large, _) = made(), made(hidden_sizes=(6,))
    with pytest.raises(RuntimeError):
        large.load_state_dict(small.state_dict())


def test_it_is_trained_evaluated_and_read_back_as_any_learner() -> None:
    settings = ReptileConfig(hidden_sizes=(4,), inner_steps=3, anneal_iterations=4, inner_optimizer="sgd")
    config = TrainConfig("reptile", "gridnavi", RunConfig(), settings)
    assert TrainConfig.from_json(json.loads(json.dumps(config.to_json()))) == config
    learner, other, sampler = config.make_learner(), config.make_learner(), Sampler(config.make_family())
    for number in range(2):
        state, tasks = learner.begin(TASKS), config.split().train_tasks(TASKS, number)
        rollouts = [sampler.collect(learner, state, tasks, 3, number)]
        for step in range(learner.inner_steps):
            state = learner.adapt(state, rollouts[-1])
            rollouts.append(sampler.collect(learner, state, tasks, 3, 10 * number + step))
        learner.update(rollouts)
    other.load_state_dict(learner.state_dict())
    held_out = config.split().held_out_tasks("test", TASKS)
    one, two = (adaptation_curve(each, sampler, held_out, steps=3, episodes=2).returns for each in (learner, other))
    assert one.shape == (TASKS, 4)
    assert np.array_equal(one, two)


@pytest.mark.parametrize("which", [0, 1], ids=["first rollout", "last rollout"])
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("name", ["rewards", "observations", "actions", "log_probs"])
def test_an_update_from_nan_changes_nothing_and_says_so(name: str, optimizer: str, which: int) -> None:
    learner, rollouts = made(inner_optimizer=optimizer)
    refuses_nan(learner, rollouts, which, name)
    assert learner.updates == 0


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"inner_steps": 0}, "inner_steps must be at least 1, not 0"),
        ({"inner_epochs": 0}, "inner_epochs must be at least 1, not 0"),
        ({"inner_lr": 0.0}, "inner_lr must be positive, not 0.0"),
        ({"inner_lr": math.nan}, "inner_lr must be positive, not nan"),
        ({"clip_range": -0.2}, "clip_range must be positive, not -0.2"),
        ({"outer_lr": 1.5}, r"outer_lr must lie in \[0, 1\], not 1.5"),
        ({"outer_lr": -0.1}, r"outer_lr must lie in \[0, 1\], not -0.1"),
        ({"anneal_iterations": -1}, "anneal_iterations must be 0 or more, not -1"),
        ({"inner_optimizer": "rmsprop"}, "inner_optimizer must be one of adam, sgd, not 'rmsprop'"),
        ({"discount": 2.0}, r"discount must lie in \[0, 1\], not 2.0"),
    ],
    ids=str,
)
def test_settings_that_make_no_sense_are_refused(bad: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"^{message}$"):
        ReptileConfig(**bad)
