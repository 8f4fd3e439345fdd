from typing import Any

import pytest
import torch
from torch import Tensor

from metarl.agents.in_context.generated import GeneratedNetwork
from metarl.agents.in_context.hyper_rl2 import HyperRl2, HyperRl2Config
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


def by_hand(network: GeneratedNetwork, inputs: Tensor, context: Tensor) -> Tensor:
    """Compute one step's outputs with sizes 2, 3 and 4, weight by weight."""
    numbers = network.hypernetwork.weight @ context + network.hypernetwork.bias
    first, bias, last, end = numbers.split([6, 3, 12, 4])
    hidden = torch.tanh(inputs @ first.view(2, 3) + bias)
    return hidden @ last.view(3, 4) + end


def test_each_step_has_a_network_of_its_own() -> None:
    torch.manual_seed(0)
    network = GeneratedNetwork([2, 3, 4], 5).double()
    torch.nn.init.normal_(network.hypernetwork.weight)
    inputs, contexts = torch.randn(6, 2).double(), torch.randn(6, 5).double()
    expected = torch.stack([by_hand(network, *step) for step in zip(inputs, contexts, strict=True)])
    read = torch.cat([inputs, contexts], -1)
    assert torch.allclose(network(read), expected)
    assert torch.equal(network(read.view(3, 2, 7)), network(read).view(3, 2, 4))


def test_at_first_all_trials_have_nearly_the_same_network() -> None:
    torch.manual_seed(0)
    network = GeneratedNetwork([2, 32, 5], 16, gain=0.5)
    outputs = network(torch.cat([torch.randn(2).expand(50, 2), torch.randn(50, 16).tanh()], -1))
    assert outputs.std(0).max() < 0.1
    first, last = (weight for weight, _ in network._layers(network.hypernetwork.bias))
    assert first.std().item() == pytest.approx((2 / 34) ** 0.5, rel=0.3)  # Glorot: 2 / (inputs + outputs)
    assert last.std().item() == pytest.approx(0.5 * (2 / 37) ** 0.5, rel=0.3)


@pytest.mark.parametrize(("memory", "generated_critic"), [*((name, False) for name in MEMORIES), ("gru", True)])
def test_reading_a_trial_at_once_equals_stepping_through_it(memory: str, generated_critic: bool) -> None:
    hyper = learner(**memory_settings(memory), generated_critic=generated_critic)
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


def test_the_trial_reaches_policy_and_critic_through_their_weights_alone() -> None:
    network: Any = learner(generated_critic=True).network
    inputs = torch.zeros(1, 1, network.memory.gru.input_size)
    parts = (network.policy, network.critic)

    def outputs(remembered: float) -> Tensor:
        distribution, values, _ = network(inputs, {"hidden": torch.full((1, 8), remembered)})
        return torch.cat([distribution.logits[0, 0], values[0]])

    assert (outputs(0.0) != outputs(1.0)).all()
    with torch.no_grad():
        for part in parts:
            part.hypernetwork.weight.zero_()
    assert torch.equal(outputs(0.0), outputs(1.0))


@pytest.mark.parametrize("generated_critic", [False, True])
def test_an_iteration_moves_hypernetworks_and_memory(generated_critic: bool) -> None:
    hyper = learner(generated_critic=generated_critic)
    sampler, tasks = Sampler(FAMILY), TaskSplit(FAMILY).train_tasks(3, 1)
    first = sampler.collect(hyper, hyper.begin(3), tasks, 4, seed=1)
    second = sampler.collect(hyper, hyper.adapt(hyper.begin(3), first), tasks, 4, seed=2)
    before = {name: value.clone() for name, value in hyper.network.state_dict().items()}
    hyper.update([first, second])
    moved = {name for name, value in hyper.network.state_dict().items() if not torch.equal(value, before[name])}
    critic = "critic.hypernetwork" if generated_critic else "critic"
    parts = {f"{part}.{kind}" for part in ("policy.hypernetwork", critic) for kind in ("weight", "bias")}
    assert parts | {"memory.gru.weight_ih_l0"} <= moved


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
