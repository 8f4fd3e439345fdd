from typing import Any

import pytest
import torch
from torch import Tensor

from metarl.agents.in_context.hyper_rl2 import GeneratedPolicy, HyperRl2, HyperRl2Config
from metarl.agents.in_context.memories.memory import MEMORIES
from metarl.errors import InputError
from metarl.families.family import make_family
from metarl.families.splits import TaskSplit
from metarl.sampling.sampler import Sampler
from tests.agents.language.models import memory_settings

FAMILY = make_family("gridnavi", horizon=4)
CPU = torch.device("cpu")


def learner(**settings: Any) -> HyperRl2:
    return HyperRl2(FAMILY, HyperRl2Config(episodes_per_trial=2, hidden_size=8, **settings), 1, CPU)


def by_hand(policy: GeneratedPolicy, context: Tensor, inputs: Tensor) -> Tensor:
    """Compute one step's outputs with sizes 2, 3 and 4, weight by weight."""
    numbers = policy.hypernetwork.weight @ context + policy.hypernetwork.bias
    first, bias, last, end = numbers.split([6, 3, 12, 4])
    hidden = torch.tanh(inputs @ first.view(2, 3) + bias)
    return hidden @ last.view(3, 4) + end


def test_each_step_has_a_policy_of_its_own() -> None:
    torch.manual_seed(0)
    policy = GeneratedPolicy(5, [2, 3, 4]).double()
    torch.nn.init.normal_(policy.hypernetwork.weight)
    contexts, inputs = torch.randn(6, 5).double(), torch.randn(6, 2).double()
    expected = torch.stack([by_hand(policy, *step) for step in zip(contexts, inputs, strict=True)])
    assert torch.allclose(policy(contexts, inputs), expected)


def test_at_first_all_trials_have_nearly_the_same_policy() -> None:
    torch.manual_seed(0)
    policy = GeneratedPolicy(16, [2, 32, 5])
    inputs = torch.randn(2).expand(50, 2)
    outputs = policy(torch.randn(50, 16).tanh(), inputs)
    assert outputs.std(0).max() < 0.1
    hidden = policy._layers(policy.hypernetwork.bias)[0][0]
    assert hidden.std().item() == pytest.approx((2 / 34) ** 0.5, rel=0.3)  # Glorot: 2 / (inputs + outputs)


@pytest.mark.parametrize("memory", list(MEMORIES))
def test_reading_a_trial_at_once_equals_stepping_through_it(memory: str) -> None:
    hyper = learner(**memory_settings(memory))
    network, inputs = hyper.network.double(), torch.randn(3, 7, hyper.inputs.size, dtype=torch.float64)
    whole, values, last = network(inputs, network.initial(3))
    remembered, logits, stepped = network.initial(3), [], []
    for step in inputs.split(1, 1):
        distribution, value, remembered = network(step, remembered)
        logits.append(distribution.logits)
        stepped.append(value)
    assert torch.allclose(torch.cat(logits, 1), whole.logits)
    assert torch.allclose(torch.cat(stepped, 1), values)
    assert all(torch.allclose(remembered[name], last[name]) for name in last)


def test_the_trial_reaches_the_policy_through_its_weights_alone() -> None:
    network = learner().network
    inputs = torch.zeros(1, 1, network.memory.gru.input_size)  # type: ignore[union-attr, operator]
    with torch.no_grad():
        network.policy.hypernetwork.weight.zero_()  # type: ignore[union-attr]
    one, other = (network(inputs, {"hidden": torch.full((1, 8), remembered)})[0].logits for remembered in (0.0, 1.0))
    assert torch.equal(one, other)


def test_an_iteration_moves_the_hypernetwork_and_the_memory() -> None:
    hyper = learner()
    sampler, tasks = Sampler(FAMILY), TaskSplit(FAMILY).train_tasks(3, 1)
    first = sampler.collect(hyper, hyper.begin(3), tasks, 4, seed=1)
    second = sampler.collect(hyper, hyper.adapt(hyper.begin(3), first), tasks, 4, seed=2)
    before = {name: value.clone() for name, value in hyper.network.state_dict().items()}
    hyper.update([first, second])
    moved = {name for name, value in hyper.network.state_dict().items() if not torch.equal(value, before[name])}
    assert {"policy.hypernetwork.weight", "policy.hypernetwork.bias", "memory.gru.weight_ih_l0"} <= moved


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hidden_size": 0}, "hidden_size must be at least 1, not 0"),
        ({"policy_sizes": (8, 0)}, r"every hidden layer needs at least one unit, not \[8, 0\]"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        HyperRl2Config(**settings)
