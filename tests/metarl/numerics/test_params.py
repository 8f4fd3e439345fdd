import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tensordict import TensorDict

from metarl.numerics.params import flatten, gradient, leaf, names, per_task, tensors, unflatten

SHAPES = st.dictionaries(
    st.text("abcdefgh_", min_size=1, max_size=6),
    st.lists(st.integers(1, 3), max_size=3),
    min_size=1,
    max_size=4,
)


def small() -> TensorDict:
    return TensorDict({"weight": torch.tensor([[1.0, 2.0]]), "bias": torch.tensor([3.0])})


@given(SHAPES)
@settings(deadline=None, max_examples=30)
def test_unflatten_undoes_flatten(shapes: dict[str, list[int]]) -> None:
    params = TensorDict({name: torch.randn(shape) for name, shape in shapes.items()})
    back = unflatten(flatten(params), params)
    assert set(back.keys()) == set(shapes)
    assert all(torch.equal(back[name], params[name]) for name in shapes)


@given(SHAPES)
@settings(deadline=None, max_examples=30)
def test_flatten_undoes_unflatten(shapes: dict[str, list[int]]) -> None:
    like = TensorDict({name: torch.zeros(shape) for name, shape in shapes.items()})
    vector = torch.randn(sum(value.numel() for value in like.values()))
    assert torch.equal(flatten(unflatten(vector, like)), vector)


def test_flatten_goes_by_name_not_by_insertion() -> None:
    # "bias" comes before "weight".
    assert flatten(small()).tolist() == [3.0, 1.0, 2.0]


def test_names_are_sorted() -> None:
    assert names(small()) == ["bias", "weight"]


def test_tensors_come_in_the_order_of_the_names() -> None:
    assert [value.tolist() for value in tensors(small())] == [[3.0], [[1.0, 2.0]]]


def test_flatten_is_differentiable() -> None:
    params = leaf(small())
    (flatten(params) * torch.tensor([10.0, 20.0, 30.0])).sum().backward()
    assert params["weight"].grad.tolist() == [[20.0, 30.0]]


def test_unflatten_is_differentiable() -> None:
    vector = torch.zeros(3, requires_grad=True)
    unflatten(vector, small())["weight"].sum().backward()
    assert vector.grad is not None
    assert vector.grad.tolist() == [0.0, 1.0, 1.0]


def test_per_task_adds_a_leading_axis() -> None:
    stacked = per_task(small(), 4)
    assert stacked.batch_size == torch.Size([4])
    assert stacked["weight"].shape == (4, 1, 2)


def test_per_task_gives_every_task_the_same_values() -> None:
    assert torch.equal(per_task(small(), 3)["bias"], torch.full((3, 1), 3.0))


def test_per_task_does_not_copy() -> None:
    params = small()
    assert per_task(params, 4)["weight"].data_ptr() == params["weight"].data_ptr()


def test_leaf_requires_grad_and_has_no_history() -> None:
    source = TensorDict({"a": torch.ones(2, requires_grad=True) * 2})
    assert leaf(source)["a"].is_leaf
    assert leaf(source)["a"].requires_grad


def test_leaf_owns_its_memory() -> None:
    params = small()
    with torch.no_grad():
        leaf(params)["bias"].fill_(9.0)
    assert params["bias"].item() == 3.0


def test_leaves_of_shared_parameters_are_separate_tasks() -> None:
    # A step on one task's parameters must not move the others', although per_task shares memory.
    stacked = leaf(per_task(small(), 2))
    with torch.no_grad():
        stacked["bias"][0] = 9.0
    assert stacked["bias"].tolist() == [[9.0], [3.0]]


def test_gradient_of_a_polynomial() -> None:
    # d/dw (w0² + 3 w1) = (2 w0, 3); d/db b³ = 3 b² = 27.
    params = leaf(small())
    weight, bias = params["weight"], params["bias"]
    found = gradient(weight[0, 0] ** 2 + 3 * weight[0, 1] + bias[0] ** 3, params)
    assert found["weight"].tolist() == [[2.0, 3.0]]
    assert found["bias"].tolist() == [27.0]


def test_gradient_keeps_the_task_axis() -> None:
    params = leaf(per_task(small(), 5))
    found = gradient((params["weight"].sum() + params["bias"].sum()), params)
    assert found.batch_size == torch.Size([5])


def test_gradient_is_detached_by_default() -> None:
    params = leaf(TensorDict({"a": torch.ones(1)}))
    assert not gradient((params["a"] ** 3).sum(), params)["a"].requires_grad


def test_gradient_can_be_differentiated_again() -> None:
    # d²/da² a³ = 6 a = 12 at a = 2.
    params = leaf(TensorDict({"a": torch.tensor(2.0)}))
    first = gradient(params["a"] ** 3, params, create_graph=True)
    assert gradient(first["a"], params)["a"].item() == pytest.approx(12.0)
