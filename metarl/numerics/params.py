"""Parameters: TensorDicts of named tensors, with a leading task axis ``[N, ...]`` if every task has its own."""

from typing import cast

import torch
from tensordict import TensorDict
from torch import Tensor


def names(params: TensorDict) -> list[str]:
    """Return the sorted names of the entries, the order used by all functions here."""
    return sorted(str(key) for key in params.keys())


def tensors(params: TensorDict) -> list[Tensor]:
    """Return the entries in the order of ``names``."""
    return [params[name] for name in names(params)]


def per_task(params: TensorDict, num_tasks: int) -> TensorDict:
    """Give each of ``num_tasks`` tasks the same parameters, without copying: ``[]`` becomes ``[N]``."""
    return params.expand(num_tasks)


def leaf(params: TensorDict) -> TensorDict:
    """Return the parameters as new leaf tensors that require gradients."""
    return cast(TensorDict, params.detach().apply(lambda value: value.clone().requires_grad_()))


def gradient(objective: Tensor, params: TensorDict, create_graph: bool = False) -> TensorDict:
    """Return the gradient of a scalar with respect to every tensor of ``params``, shaped like them.

    Args:
        objective: a scalar.
        params: tensors that ``objective`` was computed from.
        create_graph: make the gradient differentiable, as second-order meta-gradients require.
    """
    values = torch.autograd.grad(objective, tensors(params), create_graph=create_graph)
    return TensorDict(dict(zip(names(params), values, strict=True)), params.batch_size)


def flatten(params: TensorDict) -> Tensor:
    """Concatenate all entries of un-stacked parameters into one vector ``[P]``, in the order of their names."""
    return torch.cat([value.reshape(-1) for value in tensors(params)])


def unflatten(vector: Tensor, like: TensorDict) -> TensorDict:
    """Split a vector ``[P]`` into parameters shaped like ``like``; the inverse of ``flatten``."""
    shapes = tensors(like)
    pieces = torch.split(vector, [value.numel() for value in shapes])
    return TensorDict(
        {name: piece.view_as(value) for name, piece, value in zip(names(like), pieces, shapes, strict=True)}
    )
