"""Optimisers by name: torch's, or a user's own."""

import copy
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from metarl.errors import InputError
from metarl.registry import find_by_name, import_named

# Not optimisers that step from ordinary gradients alone: LBFGS evaluates a closure, SparseAdam wants sparse gradients.
OWN_WAY = ("LBFGS", "SparseAdam", "Optimizer")
COUNTED = "counted"


@dataclass(frozen=True)
class OptimizerConfig:
    """Setting of learners that train with an optimiser of the user's choice, for all of their networks."""

    optimizer: str = "adam"
    """Optimiser: adam, another of torch.optim in lower case (adamw, sgd, rmsprop, ...), or your own as module:name."""


def torch_optimizers() -> dict[str, type[torch.optim.Optimizer]]:
    """Return torch's optimisers by their names in lower case."""
    found = {name: value for name, value in vars(torch.optim).items() if name not in OWN_WAY and inspect.isclass(value)}
    return {name.lower(): value for name, value in found.items() if issubclass(value, torch.optim.Optimizer)}


def make_optimizer(
    name: str, params: Iterable[Tensor], lr: float, weight_decay: float | None = None, **of_adam: Any
) -> torch.optim.Optimizer:
    """Return an optimiser that minimises.

    Args:
        name: as in ``OptimizerConfig``.
        params: what it trains.
        lr: its step size.
        weight_decay: its weight decay; None for its own. An optimiser without one takes only None and 0.
        of_adam: further arguments, for ``adam`` and ``adamw`` only; all else is the optimiser's default.

    Raises:
        InputError: if there is no such optimiser, or it does not take these parameters and settings.
    """
    kind, own = find_optimizer(name), {"lr": lr, **(of_adam if name in ("adam", "adamw") else {})}
    if weight_decay or (weight_decay == 0 and "weight_decay" in inspect.signature(kind).parameters):
        own["weight_decay"] = weight_decay
    try:
        return kind(list(params), **own)
    except (TypeError, ValueError) as error:
        raise InputError(f"the optimiser {name} cannot be made with {', '.join(own)} alone ({error})") from error


def find_optimizer(name: str) -> Callable[..., torch.optim.Optimizer]:
    """Return the class of an optimiser by its name, as in ``OptimizerConfig``.

    Raises:
        InputError: if there is no such optimiser.
    """
    module, colon, own = name.rpartition(":")
    if not colon:
        return find_by_name(torch_optimizers(), name, "optimiser", "the manual of torch.optim")
    kind = getattr(import_named(module, f"optimiser {name!r}"), own, None)
    if not (inspect.isclass(kind) and issubclass(kind, torch.optim.Optimizer)):
        raise InputError(f"{name} is not a torch.optim.Optimizer; name a class as module:name")
    return kind


def moments(optimizer: torch.optim.Optimizer) -> dict[Any, Any]:
    """Return a copy of what an optimiser remembers of its steps, for a checkpoint; its settings are not part of it.

    Some optimisers count in their group of parameters instead of for each parameter: that is under ``COUNTED``.
    """
    (group,) = optimizer.param_groups
    settings = optimizer.defaults
    counted = {
        name: value
        for name, value in group.items()
        if name not in ("params", "lr") and not (name in settings and bool(value == settings[name]))
    }
    state = optimizer.state_dict()["state"]
    remembered: dict[Any, Any] = copy.deepcopy({**state, COUNTED: counted} if counted else state)
    return remembered


def restore_moments(optimizer: torch.optim.Optimizer, remembered: Mapping[Any, Any]) -> None:
    """Restore what ``moments`` returned."""
    state = copy.deepcopy(dict(remembered))
    counted = state.pop(COUNTED, {})
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    optimizer.param_groups[0].update(counted)
