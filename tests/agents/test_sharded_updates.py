"""Processes that hold a shard of the tasks each end up with the parameters of one process that holds all tasks.

The processes are threads (tests/processes.py); rollouts are the same ones, split by task. Everything is in float64, so
that what is left between the two is rounding.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from metarl.devices.processes import Processes
from metarl.errors import RunError
from metarl.learning.learner import LEARNERS, Learner
from metarl.learning.trust_region import TrustRegionConfig
from metarl.numerics.distributions import DiagonalGaussian
from metarl.numerics.params import flatten
from metarl.rollouts.rollout import Rollout
from metarl.run.config import RunConfig, TrainConfig
from tests.agents.by_hand import float64, iteration
from tests.fakes import made_up_rollout
from tests.processes import in_threads, shards
from tests.runs import double

# Few products: on so little data conjugate gradient turns a change of 1e-14 into one of 1e-2 within ten.
FEW = {"trust_region": TrustRegionConfig(cg_iterations=3, cg_damping=0.01)}
TWO_STEPS = {"inner_steps": 2, "learned_step_sizes": True}
GRADIENT_BASED: list[Any] = [
    pytest.param("maml-trpo", "navigation-2d", FEW, id="maml-trpo"),
    pytest.param("maml-trpo", "gridnavi", {**FEW, **TWO_STEPS}, id="maml-trpo two steps"),
    pytest.param("maml-ppo", "navigation-2d", {"epochs": 3, "exploration": 0.3}, id="maml-ppo"),
    pytest.param("maml-vpg", "navigation-2d", {"exploration": 0.3, "max_gradient_norm": 0.1}, id="maml-vpg"),
    pytest.param("reptile", "navigation-2d", {}, id="reptile"),
]
SHORT = {"episodes_per_trial": 2}
PPO = {"epochs": 2, "normalize_observations": True}
SMALL = {"encoder_size": 8, "model_updates": 3, "model_trials": 6}
SMALL |= {"model_prefixes": 3, "model_targets": 4, "buffer_trials": 13}
SMALL_SAC = {"hidden_size": 8, "trials_per_update": 4, "buffer_trials": 13, "updates_per_iteration": 5}
SMALL_AMAGO = {**SMALL_SAC, "layers": 1, "discounts": (0.5, 0.9), "updates_per_iteration": 2}
COMPARED = {"encoder_size": 8, "hidden_sizes": (8,), "metric_updates": 3}
IN_CONTEXT: list[Any] = [
    pytest.param("rl2", {**PPO, "hidden_size": 8, "minibatches": 1}, id="rl2 one minibatch"),
    # Two trials of ten in each: the process of one task has none of its own in most of them.
    pytest.param("rl2", {**PPO, "hidden_size": 8, "minibatches": 5}, id="rl2 gru"),
    pytest.param("rl2", {**PPO, "hidden_size": 8, "minibatches": 5, "memory": "transformer"}, id="rl2 transformer"),
    pytest.param("rl2", {**PPO, "hidden_size": 8, "minibatches": 5, "memory": "external"}, id="rl2 external"),
    pytest.param("hyper-rl2", {**PPO, "hidden_size": 8, "policy_sizes": (4,), "minibatches": 5}, id="hyper-rl2"),
    pytest.param("varibad", {**PPO, **SMALL, "minibatches": 5, "transition_weight": 0.5}, id="varibad"),
    pytest.param("varibad", {**PPO, **SMALL, "minibatches": 1, "model_trials": 2}, id="varibad draws from some only"),
    pytest.param(
        "varibad", {**PPO, **SMALL, "policy_belief_size": 4, "normalize_beliefs": True}, id="varibad normalised"
    ),
    pytest.param("metric", {**PPO, **COMPARED, "minibatches": 5, "metric_tasks": 3}, id="metric"),
    pytest.param("metric", {**PPO, **COMPARED, "task_encoder": "relation", "memory": "gru"}, id="metric relation"),
    pytest.param("recurrent-sac", SMALL_SAC, id="recurrent-sac"),
    pytest.param("amago", SMALL_AMAGO, id="amago"),
    pytest.param("dpt", {"hidden_size": 8, "minibatches": 5, "epochs": 2}, id="dpt"),
    pytest.param("algorithm-distillation", {"hidden_size": 8, "minibatches": 5}, id="algorithm-distillation"),
]
EPISODES, STEPS = 2, 6


def leaves(content: Any) -> Iterator[Tensor]:
    """Yield all numbers of a nested state, in a fixed order."""
    if isinstance(content, dict):
        for key in sorted(content, key=str):
            yield from leaves(content[key])
    elif isinstance(content, list | tuple):
        for value in content:
            yield from leaves(value)
    else:
        yield content if isinstance(content, Tensor) else torch.tensor(content)


def state_of(learner: Learner) -> list[Tensor]:
    """Return all that training changes, but the replay buffers, of which each process has its own."""
    return list(leaves(learner.state_dict()))


def learner_of(name: str, **settings: Any) -> Learner:
    """Return an untrained learner in float64."""
    chosen = LEARNERS[name].config_class(**settings)
    with float64():
        return TrainConfig(name, "navigation-2d", RunConfig(horizon=STEPS), chosen).make_learner()


def iteration_of(tasks: int, seed: int) -> list[Rollout]:
    """Return the rollouts of trials of two episodes; the last task's are the shortest, as are those of its process."""
    rollouts = []
    for number in range(2):
        rollout = double(made_up_rollout(tasks, EPISODES, STEPS, seed + number))
        valid = rollout.valid.clone()
        valid[::2, 0, 4:] = False
        valid[-1, :, 3:] = False
        likely = DiagonalGaussian(torch.zeros_like(rollout.actions), torch.zeros_like(rollout.actions))
        known = {"log_probs": likely.log_prob(rollout.actions), "best_actions": rollout.actions.flip(-1)}
        rollout = replace(rollout, distribution=likely, **known)
        kept = {
            name: value.masked_fill(~valid.view(*valid.shape, *[1] * (value.ndim - 3)), 0)
            for name, value in vars(rollout).items()
            if isinstance(value, Tensor) and value.shape[:3] == valid.shape
        }
        rollouts.append(replace(rollout, **{**kept, "valid": valid}))
    return rollouts


def updated(learner: Learner, iterations: Sequence[Sequence[Rollout]]) -> tuple[list[Tensor], list[dict[str, float]]]:
    """Update a learner once with each iteration; return its state, and the metrics."""
    metrics = [learner.update(rollouts) for rollouts in iterations]
    return state_of(learner), metrics


def sharded(
    learners: Sequence[Learner], iterations: Sequence[Sequence[Rollout]], bounds: Sequence[int]
) -> list[tuple[list[Tensor], list[dict[str, float]]]]:
    """Update a learner on each process with its shard of the tasks of each iteration; return what each has then."""
    parts = [shards(rollouts, bounds) for rollouts in iterations]

    def work(processes: Processes) -> tuple[list[Tensor], list[dict[str, float]]]:
        learner = learners[processes.rank]
        learner.processes = processes
        return updated(learner, [part[processes.rank] for part in parts])

    return in_threads(len(bounds) - 1, work)


def far(one: Sequence[Tensor], other: Sequence[Tensor]) -> bool:
    """Return whether some number differs by more than rounding does."""
    return any(
        not torch.allclose(a.double(), b.double(), rtol=1e-4, atol=1e-6) for a, b in zip(one, other, strict=True)
    )


def hold(found: Any, whole: tuple[list[Tensor], list[dict[str, float]]], rtol: float = 1e-7) -> None:
    """Hold the processes to one process: equal up to rounding, and bit for bit between them."""
    for state, metrics in found:
        torch.testing.assert_close(state, whole[0], rtol=rtol, atol=0.01 * rtol)
        torch.testing.assert_close(metrics, whole[1], rtol=rtol, atol=0.01 * rtol)
        assert all(map(torch.equal, state, found[0][0]))
        assert metrics == found[0][1]


@pytest.mark.parametrize("bounds", [(0, 2, 3), (0, 1, 2, 3)], ids=["2 and 1", "1, 1 and 1"])
@pytest.mark.parametrize(("name", "family", "settings"), GRADIENT_BASED)
def test_gradient_based_learners(name: str, family: str, settings: dict[str, Any], bounds: tuple[int, ...]) -> None:
    whole, rollouts = iteration(name, family, **settings)
    *learners, alone = [iteration(name, family, **settings)[0] for _ in bounds]
    iterations = [rollouts, rollouts]
    with float64():
        expected = updated(whole, iterations)
        found = sharded(learners, iterations, bounds)
    # The normal equations of the baselines of so few steps turn rounding into 1e-8 of an advantage.
    hold(found, expected, rtol=1e-4 if name == "maml-trpo" else 1e-6)
    # Without means over processes a shard leads elsewhere.
    first = shards(rollouts, bounds)[0]
    assert far(updated(alone, [first, first])[0], expected[0])


def test_curvature_products_are_those_of_all_tasks() -> None:
    whole, rollouts = iteration("maml-trpo", inner_lr=0.5)
    learners = [iteration("maml-trpo", inner_lr=0.5)[0] for _ in range(2)]
    parts, vector = shards(rollouts, (0, 1, 3)), torch.linspace(-1, 1, flatten(whole.params).numel()).double()

    def product(learner: Any, own: Sequence[Rollout]) -> Tensor:
        *support, query = [learner.episodes(rollout) for rollout in own]
        image: Tensor = learner.curvature(support, query)(vector)
        return image

    def work(processes: Processes) -> Tensor:
        learners[processes.rank].processes = processes
        return product(learners[processes.rank], parts[processes.rank])

    with float64():
        expected = product(whole, rollouts)
        assert far([product(whole, parts[0])], [expected])
        for image in in_threads(2, work):
            torch.testing.assert_close(image, expected, rtol=1e-6, atol=1e-8)


# A memory sees nothing of the processes, so its trials are divided in one way.
DIVIDED = [pytest.param(*each.values, (0, 2, 4, 5), id=each.id) for each in IN_CONTEXT]
DIVIDED += [pytest.param(*each.values, (0, 1, 5), id=f"{each.id} unevenly") for each in IN_CONTEXT[1:2]]


@pytest.mark.parametrize(("name", "settings", "bounds"), DIVIDED)
def test_in_context_learners(name: str, settings: dict[str, Any], bounds: tuple[int, ...]) -> None:
    iterations = [iteration_of(5, seed) for seed in (0, 10)]
    whole, alone, *learners = [learner_of(name, **SHORT, **settings) for _ in range(len(bounds) + 1)]
    with float64():
        expected = updated(whole, iterations)
        found = sharded(learners, iterations, bounds)
        own = [shards(rollouts, bounds)[0] for rollouts in iterations]
        assert far(updated(alone, own)[0], expected[0])
    hold(found, expected)


@pytest.mark.parametrize("task_encoder", ["critic", "relation"])
def test_pearls_processes_stay_equal(task_encoder: str) -> None:
    # Which transitions it draws depends on who keeps them; what it does with them must not.
    small = {"updates_per_iteration": 3, "batch_size": 4, "context_size": 5, "hidden_sizes": (8,)}
    settings = {**small, "task_encoder": task_encoder}
    iterations = [[rollout.map(single) for rollout in iteration_of(5, seed)] for seed in (0, 10)]
    learners = [
        TrainConfig(
            "pearl", "navigation-2d", RunConfig(horizon=STEPS), LEARNERS["pearl"].config_class(**settings)
        ).make_learner()
        for _ in range(2)
    ]
    (one, first), (other, second) = sharded(learners, iterations, (0, 2, 5))
    assert all(map(torch.equal, one, other))
    assert first == second
    assert first[-1]["replay_transitions"] == sum(float(r.valid.sum()) for each in iterations for r in each)


def single(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor


@pytest.mark.parametrize("name", ["maml-trpo", "maml-ppo", "maml-vpg", "reptile"])
def test_a_nan_on_one_process_is_refused_by_all(name: str) -> None:
    _, rollouts = iteration(name)
    learners = [iteration(name)[0] for _ in range(2)]
    before = [state_of(learner) for learner in learners]
    rewards = rollouts[-1].rewards.clone()
    rewards[0, 1, 2] = torch.nan
    broken = [*rollouts[:-1], replace(rollouts[-1], rewards=rewards)]

    def work(processes: Processes) -> str:
        learners[processes.rank].processes = processes
        with pytest.raises(RunError, match="not finite") as error:
            learners[processes.rank].update(shards(broken, (0, 2, 3))[processes.rank])
        return str(error.value)

    with float64():
        assert len(set(in_threads(2, work))) == 1
    assert not any(far(state_of(learner), known) for learner, known in zip(learners, before, strict=True))
