import math
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from tensordict import TensorDict

import metarl.envs  # noqa: F401 (registers the families)
from metarl.errors import InputError
from metarl.families.family import make_family
from metarl.learning.policies import MAX_FIRST_LAYER, GaussianPolicy, LogitPolicy, Policy, make_policy
from metarl.numerics.distributions import Bernoulli, Categorical, DiagonalGaussian, MultiCategorical
from metarl.numerics.params import per_task
from metarl.sampling.sampler import Sampler
from tests.fakes import PolicyActor

BOX = spaces.Box(-1.0, 1.0, (2,))
SEE = spaces.Box(-1.0, 1.0, (3,))
CONTINUOUS = make_policy(SEE, BOX, (8,))
DISCRETE = make_policy(SEE, spaces.Discrete(4), (8,))


def stacked(policy: Policy, tasks: int) -> TensorDict:
    """Draw other parameters for each task."""
    singles = [policy.init_params(torch.Generator().manual_seed(seed)) for seed in range(tasks)]
    return torch.stack(singles)  # type: ignore[call-overload, no-any-return]


@pytest.mark.parametrize("policy", [CONTINUOUS, DISCRETE], ids=["gaussian", "categorical"])
def test_a_stacked_policy_is_its_single_policies(policy: Policy) -> None:
    params, observations = stacked(policy, 3), torch.randn(3, 4, 5, 3)
    together = policy.distribution(params, observations)
    for task in range(3):
        alone = policy.distribution(params[task : task + 1], observations[task : task + 1])
        for one, other in zip(together.tensors(), alone.tensors(), strict=True):
            torch.testing.assert_close(one[task], other[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["navigation-2d", "gridnavi", "bandit"])
def test_the_likelihood_ratio_is_one_at_the_sampling_parameters(name: str) -> None:
    family = make_family(name)
    policy = make_policy(family.observation_space, family.action_space, (8, 8))
    params = stacked(policy, 3)
    tasks = family.sample_tasks(3, torch.Generator().manual_seed(0))
    rollout = Sampler(family).collect(PolicyActor(policy), params, tasks, episodes=4, seed=0)
    found = policy.distribution(params, rollout.observations).log_prob(rollout.actions)
    torch.testing.assert_close(found, rollout.log_probs, rtol=0, atol=1e-5)


def test_box_actions_get_a_gaussian() -> None:
    assert isinstance(make_policy(SEE, BOX), GaussianPolicy)


@pytest.mark.parametrize(
    ("space", "kind", "shape"),
    [
        (spaces.Discrete(3), Categorical, (3,)),
        (spaces.Discrete(3, start=5), Categorical, (3,)),
        (spaces.MultiDiscrete([2, 3]), MultiCategorical, (2, 3)),
        (spaces.MultiBinary(4), Bernoulli, (4,)),
        (spaces.MultiBinary((2, 2)), Bernoulli, (4,)),
    ],
)
def test_whole_numbers_get_the_distribution_of_logits_that_fits(
    space: spaces.Space[Any], kind: type, shape: tuple[int, ...]
) -> None:
    policy = make_policy(SEE, space)
    assert isinstance(policy, LogitPolicy)
    distribution = policy.distribution(stacked(policy, 2), torch.randn(2, 5, 3))
    assert isinstance(distribution, kind)
    assert distribution.tensors()[0].shape == (2, 5, *shape)


def test_a_box_of_two_axes_is_acted_in_as_a_vector() -> None:
    policy = make_policy(SEE, spaces.Box(-1.0, 1.0, (2, 3)))
    actions, _ = policy.act(stacked(policy, 2), torch.randn(2, 5, 3), torch.Generator())
    assert actions.shape == (2, 5, 6)


@pytest.mark.parametrize(("side", "fits"), [(1000, True), (1001, False)])
def test_the_first_layer_has_a_largest_size(side: int, fits: bool) -> None:
    assert MAX_FIRST_LAYER == 1_000_000
    space = spaces.Box(-1.0, 1.0, (side,))
    if fits:
        make_policy(space, BOX, (1000,))
    else:
        with pytest.raises(InputError, match=r"has 1,001,000 weights on .* \(at most 1,000,000\); use rl2"):
            make_policy(space, BOX, (1000,))


def test_a_categorical_cannot_act_in_a_box() -> None:
    with pytest.raises(InputError, match=r"a categorical policy cannot act in Box.*use --policy gaussian"):
        make_policy(SEE, BOX, kind="categorical")


def test_a_gaussian_cannot_act_in_a_discrete_space() -> None:
    with pytest.raises(InputError, match=r"a gaussian policy cannot act in Discrete.*use --policy categorical"):
        make_policy(SEE, spaces.Discrete(3), kind="gaussian")


def test_insisting_on_the_right_kind_is_fine() -> None:
    assert isinstance(make_policy(SEE, BOX, kind="gaussian"), GaussianPolicy)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"action_space": spaces.Text(3)},
            "no policy can act in Text.*; use a Box, Discrete, MultiDiscrete or",
        ),
        ({"observation_space": spaces.Text(3)}, "no learner can observe Text.*; use a Box"),
        ({"action_space": spaces.MultiBinary(3), "kind": "categorical"}, "use --policy bernoulli"),
        ({"hidden_sizes": (8, 0)}, r"at least one unit, not \[8, 0\]"),
        ({"activation": "sine"}, "activation must be tanh, relu, another .* not 'sine'"),
    ],
)
def test_what_cannot_be_made_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_policy(**{"observation_space": SEE, "action_space": BOX, **arguments})


def test_discrete_observations_are_one_hot() -> None:
    policy = make_policy(spaces.Discrete(3), BOX)
    assert policy.features(torch.tensor([[2, 0]])).tolist() == [[[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]]


def test_discrete_observations_reach_the_network() -> None:
    policy = make_policy(spaces.Discrete(3), BOX, (4,))
    distribution = policy.distribution(stacked(policy, 2), torch.randint(3, (2, 5, 6)))
    assert isinstance(distribution, DiagonalGaussian)
    assert distribution.mean.shape == (2, 5, 6, 2)


def test_observations_of_several_axes_are_flattened() -> None:
    policy = make_policy(spaces.Box(0, 1, (2, 3)), BOX)
    assert policy.features(torch.zeros(4, 5, 2, 3)).shape == (4, 5, 6)


def test_log_std_starts_at_zero() -> None:
    assert CONTINUOUS.init_params(torch.Generator())["log_std"].tolist() == [0.0, 0.0]


def test_log_std_is_held_above_a_millionth() -> None:
    params = stacked(CONTINUOUS, 1)
    params["log_std"] = torch.full((1, 2), -100.0)
    distribution = CONTINUOUS.distribution(params, torch.zeros(1, 1, 3))
    assert isinstance(distribution, DiagonalGaussian)
    torch.testing.assert_close(distribution.log_std.flatten(), torch.full((2,), math.log(1e-6)))


def test_each_task_has_its_own_log_std() -> None:
    params = stacked(CONTINUOUS, 2)
    params["log_std"] = torch.tensor([[0.0, 1.0], [2.0, 3.0]])
    distribution = CONTINUOUS.distribution(params, torch.zeros(2, 5, 7, 3))
    assert isinstance(distribution, DiagonalGaussian)
    assert distribution.log_std.expand(2, 5, 7, 2)[:, 4, 6].tolist() == [[0.0, 1.0], [2.0, 3.0]]


def test_the_mean_is_not_squashed() -> None:
    # Actions are clipped on their way into the environment, so that log-probabilities stay those of a Gaussian.
    params = stacked(CONTINUOUS, 1)
    params["bias_1"] = torch.full((1, 2), 30.0)
    assert (CONTINUOUS.distribution(params, torch.zeros(1, 1, 3)).mode() > 1).all()


def test_deterministic_actions_are_the_mode() -> None:
    params, observations = stacked(CONTINUOUS, 2), torch.randn(2, 3, 3)
    actions, distribution = CONTINUOUS.act(params, observations, torch.Generator(), deterministic=True)
    assert torch.equal(actions, distribution.mode())


def test_stochastic_actions_come_from_the_generator() -> None:
    params, observations = stacked(CONTINUOUS, 2), torch.randn(2, 3, 3)
    one, other = (CONTINUOUS.act(params, observations, torch.Generator().manual_seed(1))[0] for _ in range(2))
    assert torch.equal(one, other)
    assert not torch.equal(one, CONTINUOUS.distribution(params, observations).mode())


def test_tasks_get_different_noise() -> None:
    params = per_task(CONTINUOUS.init_params(torch.Generator().manual_seed(0)), 2)
    actions, _ = CONTINUOUS.act(params, torch.zeros(2, 3, 3), torch.Generator().manual_seed(1))
    assert not torch.equal(actions[0], actions[1])


def test_categorical_logits_have_one_entry_for_each_action() -> None:
    distribution = DISCRETE.distribution(stacked(DISCRETE, 2), torch.zeros(2, 5, 3))
    assert isinstance(distribution, Categorical)
    assert distribution.logits.shape == (2, 5, 4)


@pytest.mark.parametrize("policy", [CONTINUOUS, DISCRETE], ids=["gaussian", "categorical"])
def test_distribution_tensors_are_float32(policy: Policy) -> None:
    tensors = policy.distribution(stacked(policy, 1), torch.zeros(1, 1, 3)).tensors()
    assert {tensor.dtype for tensor in tensors} == {torch.float32}


def test_unused_precision_of_a_space_does_not_matter() -> None:
    policy = make_policy(spaces.Box(-1, 1, (3,), np.float64), spaces.Box(-1, 1, (2,), np.float64))
    assert {value.dtype for value in policy.init_params(torch.Generator()).values()} == {torch.float32}
