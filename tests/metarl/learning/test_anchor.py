"""The penalty of elastic weight consolidation, by hand."""

import pytest
import torch
from torch import Tensor, nn

from metarl.learning.anchor import Anchor, information


def test_information_is_the_mean_square_of_the_samples_gradients() -> None:
    slope, unused = nn.Parameter(torch.tensor([2.0])), nn.Parameter(torch.ones(1))
    inputs, errors = torch.tensor([1.0, 3.0]), torch.tensor([0.5, -1.0])

    def log_prob(number: int) -> Tensor:
        sample = (slope * inputs[number]).detach() + errors[number]
        return -0.5 * (sample - slope * inputs[number]).square().sum()

    # The gradients are 0.5 * 1 and -1 * 3.
    found = information(log_prob, 2, {"slope": slope, "unused": unused})
    assert found == {"slope": pytest.approx((0.25 + 9) / 2)}


def test_a_step_follows_the_loss_and_the_penalty_of_all_tasks() -> None:
    held, other = nn.Parameter(torch.tensor([5.0, 5.0])), nn.Parameter(torch.tensor([5.0]))
    anchor = Anchor(0.5)
    tasks = [(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 0.0])), (torch.tensor([3.0, 0.0]), torch.tensor([2.0, 4.0]))]
    for place, importance in tasks:
        anchor.add({"held": place}, {"held": importance})
    optimizer = torch.optim.SGD([held, other], lr=1.0)
    anchor.hold({"held": held, "other": other}, optimizer)
    held.grad, other.grad = torch.tensor([0.25, 0.25]), torch.tensor([1.0])
    optimizer.step()
    # λ Σ F (θ - θ_k): 0.5 * (1 * 4 + 2 * 2), and 0.5 * 4 * 5.
    assert held.tolist() == [5.0 - 0.25 - 4.0, 5.0 - 0.25 - 10.0]
    assert other.tolist() == [4.0]


def test_the_penalty_has_the_gradient_of_the_squared_distances() -> None:
    anchor, values = Anchor(0.5), {"held": torch.tensor([5.0, -1.0], requires_grad=True), "free": torch.ones(1)}
    assert anchor.penalty(values) == 0.0
    tasks = [(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 0.0])), (torch.tensor([3.0, 0.0]), torch.tensor([2.0, 4.0]))]
    for place, importance in tasks:
        anchor.add({"held": place}, {"held": importance})
    distances = sum((importance * (values["held"] - place).square()).sum() for place, importance in tasks)
    (expected,) = torch.autograd.grad(0.25 * distances, values["held"])
    (found,) = torch.autograd.grad(anchor.penalty(values), values["held"])
    torch.testing.assert_close(found, expected)


def test_an_optimizer_of_other_parameters_is_left_alone() -> None:
    held, other = (nn.Parameter(torch.ones(1)) for _ in range(2))
    anchor = Anchor(1.0)
    anchor.add({"held": torch.zeros(1)}, {"held": torch.ones(1)})
    optimizer = torch.optim.SGD([other], lr=1.0)
    anchor.hold({"held": held, "other": other}, optimizer)
    other.grad = torch.ones(1)
    optimizer.step()
    assert (held.item(), other.item()) == (1.0, 0.0)
    assert held.grad is None


def test_parameters_that_a_loss_does_not_reach_are_held_too() -> None:
    held = nn.Parameter(torch.ones(1))
    anchor, restored = Anchor(0.5), Anchor(0.5)
    anchor.add({"held": torch.zeros(1)}, {"held": torch.ones(1)})
    restored.load_state_dict(anchor.state_dict(), torch.device("cpu"))
    optimizer = torch.optim.SGD([held], lr=1.0)
    restored.hold({"held": held}, optimizer)
    optimizer.step()
    assert held.item() == 0.5
