import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tensordict import TensorDict

from metarl.networks.activations import ACTIVATIONS
from metarl.networks.mlp import init_mlp, mlp
from metarl.numerics.params import per_task


def by_hand(params: TensorDict, inputs: torch.Tensor) -> torch.Tensor:
    """Run one tanh perceptron of two hidden layers, written out."""
    hidden = torch.tanh(inputs @ params["weight_0"] + params["bias_0"])
    hidden = torch.tanh(hidden @ params["weight_1"] + params["bias_1"])
    return hidden @ params["weight_2"] + params["bias_2"]


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4), st.integers(0, 1000))
@settings(deadline=None, max_examples=30)
def test_n_networks_are_n_single_networks(tasks: int, inputs: int, outputs: int, seed: int) -> None:
    stream = torch.Generator().manual_seed(seed)
    singles = [init_mlp([inputs, 5, 3, outputs], stream) for _ in range(tasks)]
    data = torch.randn(tasks, 6, inputs, generator=stream)
    found = mlp(torch.stack(singles), data, torch.tanh)
    expected = torch.stack([by_hand(params, rows) for params, rows in zip(singles, data, strict=True)])
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_shapes_of_the_layers() -> None:
    params = init_mlp([4, 8, 2], torch.Generator())
    assert {name: tuple(value.shape) for name, value in params.items()} == {
        "weight_0": (4, 8), "bias_0": (8,), "weight_1": (8, 2), "bias_1": (2,)
    }  # fmt: skip


def test_biases_start_at_zero() -> None:
    params = init_mlp([4, 8, 2], torch.Generator().manual_seed(0))
    assert not params["bias_0"].any()
    assert not params["bias_1"].any()


def test_weights_fill_the_glorot_range() -> None:
    # Uniform in ±√(6 / (100 + 50)) = ±0.2: deviation 0.2/√3. Of 5000 draws the extremes come close to the bounds.
    weights = init_mlp([100, 50], torch.Generator().manual_seed(0))["weight_0"]
    limit = math.sqrt(6 / 150)
    assert weights.abs().max() <= limit
    assert weights.max() > 0.99 * limit
    assert weights.min() < -0.99 * limit


def test_the_last_layer_is_linear() -> None:
    params = TensorDict({"weight_0": torch.full((1, 1), 50.0), "bias_0": torch.zeros(1)})
    assert mlp(per_task(params, 1), torch.ones(1, 1, 1), torch.tanh).item() == 50.0


def test_other_entries_are_no_layers() -> None:
    params = init_mlp([2, 3], torch.Generator().manual_seed(0))
    inputs = torch.ones(1, 1, 2)
    plain = mlp(per_task(params, 1), inputs, torch.tanh)
    params["log_std"] = torch.ones(3)
    assert torch.equal(mlp(per_task(params, 1), inputs, torch.tanh), plain)


def test_ten_layers_and_more_stay_in_order() -> None:
    # Sorted as text, weight_10 would come before weight_2.
    params = TensorDict({f"weight_{i}": torch.full((1, 1), float(i + 1)) for i in range(11)})
    params.update({f"bias_{i}": torch.full((1,), float(i)) for i in range(11)})
    expected = 1.0
    for i in range(11):
        expected = expected * (i + 1) + i
    found = mlp(per_task(params, 1), torch.ones(1, 1, 1), lambda x: x)
    torch.testing.assert_close(found.item(), expected, rtol=1e-5, atol=0)


def test_relu_is_relu() -> None:
    assert ACTIVATIONS["relu"](torch.tensor([-1.0, 2.0])).tolist() == [0.0, 2.0]


def test_gradients_reach_only_their_own_task() -> None:
    params = (
        per_task(init_mlp([2, 3, 1], torch.Generator().manual_seed(0)), 2)
        .clone()
        .apply(lambda value: value.requires_grad_())
    )
    mlp(params, torch.ones(2, 4, 2), torch.tanh)[0].sum().backward()
    grad = params["weight_0"].grad
    assert grad[0].any()
    assert not grad[1].any()


def test_parameters_and_outputs_are_float32() -> None:
    params = init_mlp([2, 3], torch.Generator())
    assert all(value.dtype == torch.float32 for value in params.values())
    assert mlp(per_task(params, 1), torch.ones(1, 1, 2), torch.tanh).dtype == torch.float32


def test_the_generator_decides_the_weights() -> None:
    one, other = (init_mlp([3, 3], torch.Generator().manual_seed(4)) for _ in range(2))
    assert torch.equal(one["weight_0"], other["weight_0"])
