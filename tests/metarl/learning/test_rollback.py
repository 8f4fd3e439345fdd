import pytest
import torch
from torch import Tensor

from metarl.errors import RunError
from metarl.learning.rollback import restored_on_error
from tests.metarl.networks.test_optimizers import Counting


class Owner:
    """Two parameters and an optimiser of each, and a number."""

    def __init__(self) -> None:
        self.values = [torch.tensor([1.0, 2.0], requires_grad=True), torch.tensor([3.0], requires_grad=True)]
        self.optimizers = [torch.optim.Adam([value]) for value in self.values]
        self.count = 0

    def step(self, *which: int) -> None:
        for index in which:
            self.values[index].grad = torch.ones_like(self.values[index])
            self.optimizers[index].step()
        self.count += 1

    def everything(self) -> list[Tensor]:
        moments = [
            value
            for each in self.optimizers
            for entry in each.state_dict()["state"].values()
            for value in entry.values()
        ]
        return [torch.tensor(self.count), *(value.detach().clone() for value in (*self.values, *moments))]


def same(one: list[Tensor], other: list[Tensor]) -> bool:
    return len(one) == len(other) and all(map(torch.equal, one, other))


def fail(owner: Owner) -> None:
    """Take two steps of each optimiser, which change everything, and fail."""
    known = owner.everything()
    with restored_on_error(owner, ("count",), owner.values, owner.optimizers):
        owner.step(0, 1)
        owner.step(0, 1)
        assert not same(owner.everything(), known)
        raise RunError("broken")


@pytest.mark.parametrize("before", [0, 1, 2], ids=["no step", "one of two", "both"])
def test_what_an_error_leaves_is_what_there_was(before: int) -> None:
    owner = Owner()
    owner.step(*range(before))
    known = owner.everything()
    with pytest.raises(RunError, match="broken"):
        fail(owner)
    assert same(owner.everything(), known)
    # And it learns on as if nothing had been.
    other = Owner()
    other.step(*range(before))
    for each in (owner, other):
        each.step(0, 1)
    assert same(owner.everything(), other.everything())


def test_without_an_error_nothing_is_put_back() -> None:
    owner, other = Owner(), Owner()
    with restored_on_error(owner, ("count",), owner.values, owner.optimizers):
        owner.step(0, 1)
    other.step(0, 1)
    assert same(owner.everything(), other.everything())


def test_plain_numbers_of_an_optimizer_are_restored_too() -> None:
    value = torch.ones(2, requires_grad=True)
    optimizer = Counting([value], 0.1)
    value.grad = torch.ones(2)
    optimizer.step()

    def step_and_fail() -> None:
        with restored_on_error(object(), (), [value], [optimizer]):
            optimizer.step()
            raise RunError("broken")

    with pytest.raises(RunError):
        step_and_fail()
    assert optimizer.state[value]["step"] == optimizer.param_groups[0]["calls"] == 1
