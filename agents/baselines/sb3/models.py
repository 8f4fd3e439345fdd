"""The state of a Stable-Baselines3 model as plain tensors, for checkpoints or for transfer to another model.

SB3's ``get_parameters`` and ``set_parameters`` transfer networks and optimisers. Checkpoints do not use its archives
(``model.save``): reading them executes pickles, and they contain the time of day, so equal models give different bytes.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm
    from stable_baselines3.common.buffers import ReplayBuffer

COUNTERS = ("num_timesteps", "_n_updates")
COLUMNS = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts")


@dataclass(frozen=True)
class Plan:
    """How an algorithm spends environment steps: the total ``steps``, and the constructor arguments for that."""

    steps: int
    arguments: dict[str, Any]


@dataclass(frozen=True)
class Models:
    """The state for N tasks: a model for each, or one for all before the first adaptation.

    Attributes:
        models: N models, or one.
        waiting: environment steps of each of N tasks carried over to the next adaptation; None before adaptation.
        adaptations: number of adaptation steps so far.
    """

    models: "Sequence[BaseAlgorithm]"
    waiting: Sequence[int] | None = None
    adaptations: int = 0


def knowledge(model: "BaseAlgorithm") -> dict[str, Any]:
    """Return a copy of everything that training changes in a model.

    Returns:
        ``parameters`` of networks and optimisers by SB3's names, ``counters``, and depending on the algorithm the log
        entropy coefficient and the transitions ``[M, ...]``, oldest first.
    """
    known = _skills(model)
    if (buffer := _replay_buffer(model)) is not None:
        known["transitions"] = transitions(buffer)
    return known


def for_new_task(model: "BaseAlgorithm") -> dict[str, Any]:
    """Return a model's state with step counts reset and without transitions, whose rewards are from other tasks."""
    known = _skills(model)
    known["counters"]["num_timesteps"] = 0
    return known


def count_transitions(known: Mapping[str, Any]) -> int:
    """Return the number of transitions in a model's state."""
    return len(known["transitions"]["rewards"]) if "transitions" in known else 0


def _skills(model: "BaseAlgorithm") -> dict[str, Any]:
    # An optimiser's settings come from the config; its moments are learned.
    parameters = {key: value.get("state", value) for key, value in model.get_parameters().items()}
    known: dict[str, Any] = {
        "parameters": {key: copy.deepcopy(dict(value)) for key, value in parameters.items()},
        "counters": {name: int(getattr(model, name)) for name in COUNTERS if hasattr(model, name)},
    }
    if (weight := getattr(model, "log_ent_coef", None)) is not None:
        known["log_ent_coef"] = weight.detach().clone()
    return known


def teach(model: "BaseAlgorithm", known: Mapping[str, Any]) -> None:
    """Load the state of another model, which may have had another number of worlds.

    Raises:
        KeyError, RuntimeError: if the state is from another algorithm or other networks.
    """
    own = model.get_parameters()
    parameters: dict[str, Any] = {key: copy.deepcopy(dict(known["parameters"][key])) for key in own}
    for key, value in own.items():
        if "param_groups" in value:
            parameters[key] = {**value, "state": parameters[key]}
    model.set_parameters(parameters)
    for name, count in known["counters"].items():
        setattr(model, name, int(count))
    if "log_ent_coef" in known:
        weight: Tensor = getattr(model, "log_ent_coef")  # noqa: B009 (only SAC's has one)
        weight.data.copy_(known["log_ent_coef"])
    if "transitions" in known and (buffer := _replay_buffer(model)) is not None:
        remember(buffer, known["transitions"])


def transitions(buffer: "ReplayBuffer") -> dict[str, Tensor]:
    """Return the transitions in a buffer, oldest first, ``[M, ...]`` by column name."""
    size, first = buffer.size(), buffer.pos if buffer.full else 0
    order = (np.arange(size) + first) % buffer.buffer_size
    return {name: torch.from_numpy(getattr(buffer, name)[order]).flatten(0, 1) for name in COLUMNS}


def remember(buffer: "ReplayBuffer", rows: Mapping[str, Tensor]) -> None:
    """Fill an empty buffer with the latest transitions ``[M, ...]`` that fit."""
    steps = min(len(rows["rewards"]) // buffer.n_envs, buffer.buffer_size)
    if steps == 0:
        return
    for name in COLUMNS:
        latest = rows[name][-steps * buffer.n_envs :].numpy()
        getattr(buffer, name)[:steps] = latest.reshape(steps, buffer.n_envs, *latest.shape[1:])
    buffer.pos, buffer.full = steps % buffer.buffer_size, steps == buffer.buffer_size


def _replay_buffer(model: "BaseAlgorithm") -> "ReplayBuffer | None":
    """Return the replay buffer of an off-policy algorithm, or None."""
    return getattr(model, "replay_buffer", None)


def finite(model: "BaseAlgorithm") -> bool:
    """Return whether no parameter of a model is NaN or infinite."""
    return all(bool(value.isfinite().all()) for value in model.policy.parameters())


@contextmanager
def global_streams(seed: int, device: torch.device) -> Iterator[None]:
    """Seed the global generators of torch and NumPy, which SB3 uses, and restore them afterwards."""
    cuda = range(torch.cuda.device_count()) if device.type == "cuda" else range(0)
    state = np.random.get_state()  # noqa: NPY002 (SB3's stream)
    with torch.random.fork_rng(list(cuda)):
        torch.default_generator.manual_seed(seed)
        if cuda:
            torch.cuda.manual_seed_all(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        try:
            yield
        finally:
            np.random.set_state(state)  # noqa: NPY002
