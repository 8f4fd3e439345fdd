"""Parameters: TensorDicts of named tensors, with a leading task axis ``[N, ...]`` once every task has its own."""

from typing import cast

import torch
from tensordict import TensorDict
from torch import Tensor


def per_task(params: TensorDict, num_tasks: int) -> TensorDict:
    """Give each of ``num_tasks`` tasks the same parameters, without copying: ``[]`` becomes ``[N]``."""
    return cast(TensorDict, params.expand(num_tasks))


def leaf(params: TensorDict) -> TensorDict:
    """Return the parameters as fresh leaves that a gradient can be taken with respect to."""
    return cast(TensorDict, params.detach().apply(lambda value: value.clone().requires_grad_()))


def gradient(objective: Tensor, params: TensorDict, create_graph: bool = False) -> TensorDict:
    """Return the gradient of a scalar with respect to every tensor of ``params``, shaped like them.

    Args:
        objective: a scalar.
        params: tensors that ``objective`` was computed from.
        create_graph: keep the gradient differentiable, as second-order meta-gradients need.
    """
    values = torch.autograd.grad(objective, list(params.values()), create_graph=create_graph)
    return TensorDict(dict(zip(params.keys(), values, strict=True)), params.batch_size)


def flatten(params: TensorDict) -> Tensor:
    """Concatenate all entries of un-stacked parameters into one vector ``[P]``, in the order of their names."""
    return torch.cat([params[name].reshape(-1) for name in sorted(params.keys())])


def unflatten(vector: Tensor, like: TensorDict) -> TensorDict:
    """Cut a vector ``[P]`` into parameters shaped like ``like``; the inverse of :func:`flatten`."""
    names = sorted(like.keys())
    pieces = vector.split([like[name].numel() for name in names])
    return TensorDict({name: piece.view_as(like[name]) for name, piece in zip(names, pieces, strict=True)})
