"""Optimisers by name: torch's, or a user's own."""

import inspect
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from metarl.errors import InputError
from metarl.registry import find_by_name, import_named

# Those that take a step from gradients alone: LBFGS evaluates a closure, SparseAdam wants sparse gradients.
OWN_WAY = ("LBFGS", "SparseAdam", "Optimizer")


@dataclass(frozen=True)
class OptimizerConfig:
    """Setting of learners that train with an optimiser of the user's choice."""

    optimizer: str = "adam"
    """Optimiser: adam, another of torch.optim in lower case (adamw, sgd, rmsprop, ...), or your own as module:name."""


def torch_optimizers() -> dict[str, type[torch.optim.Optimizer]]:
    """Return torch's optimisers by their names in lower case."""
    found = {name: value for name, value in vars(torch.optim).items() if name not in OWN_WAY and inspect.isclass(value)}
    return {name.lower(): value for name, value in found.items() if issubclass(value, torch.optim.Optimizer)}


def make_optimizer(name: str, params: Iterable[Tensor], lr: float, **of_adam: Any) -> torch.optim.Optimizer:
    """Return an optimiser that descends.

    Args:
        name: as in ``OptimizerConfig``.
        params: what it trains.
        lr: its step size; all else is the optimiser's default.
        of_adam: further arguments, for ``adam`` only.

    Raises:
        InputError: if there is no such optimiser, or it does not take parameters and ``lr``.
    """
    module, colon, own = name.rpartition(":")
    if not colon:
        kind: Any = find_by_name(torch_optimizers(), name, "optimiser", "the manual of torch.optim")
        return kind(params, lr=lr, **(of_adam if name == "adam" else {}))  # type: ignore[no-any-return]
    kind = getattr(import_named(module, f"optimiser {name!r}"), own, None)
    if not (inspect.isclass(kind) and issubclass(kind, torch.optim.Optimizer)):
        raise InputError(f"{name} is no torch.optim.Optimizer; name a class as module:name")
    try:
        return kind(params, lr=lr)  # type: ignore[call-arg]
    except TypeError as error:
        raise InputError(f"the optimiser {name} cannot be made with parameters and lr alone ({error})") from error
