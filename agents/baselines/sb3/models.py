"""What a model of Stable-Baselines3 knows, as plain tensors: to be checkpointed, or given to another model.

SB3's ``get_parameters`` and ``set_parameters`` move networks and optimisers. Its archives (``model.save``) are not what
checkpoints hold: reading one back runs the pickles in it, and it carries the time of day, so that equal models give
different bytes.
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
    """How an algorithm spends environment steps: ``steps`` in all, and the arguments of its constructor for that."""

    steps: int
    arguments: dict[str, Any]


@dataclass(frozen=True)
class Models:
    """What is known of N tasks: a model for each, or one for all until the first adaptation.

    Attributes:
        models: N of them, or one.
        waiting: environment steps of each task that were granted and not yet taken, N of them; None before adaptation.
        adaptations: how many there were.
    """

    models: "Sequence[BaseAlgorithm]"
    waiting: Sequence[int] | None = None
    adaptations: int = 0


def knowledge(model: "BaseAlgorithm") -> dict[str, Any]:
    """Return what training changed in a model, in tensors of its own.

    Returns:
        ``parameters`` of networks and optimisers by SB3's names, ``counters``, and what else the algorithm has: the
        logarithm of the entropy's weight, and the transitions ``[M, ...]``, oldest first.
    """
    known = _skills(model)
    if (buffer := _replay_buffer(model)) is not None:
        known["transitions"] = transitions(buffer)
    return known


def for_new_task(model: "BaseAlgorithm") -> dict[str, Any]:
    """Return a model's knowledge without its transitions, whose rewards were other tasks', and with no steps taken."""
    known = _skills(model)
    known["counters"]["num_timesteps"] = 0
    return known


def count_transitions(known: Mapping[str, Any]) -> int:
    """Return how many transitions belong to what is known."""
    return len(known["transitions"]["rewards"]) if "transitions" in known else 0


def _skills(model: "BaseAlgorithm") -> dict[str, Any]:
    # The settings of an optimiser are the config's; what it remembers of each parameter is learned.
    parameters = {key: value.get("state", value) for key, value in model.get_parameters().items()}
    known: dict[str, Any] = {
        "parameters": {key: copy.deepcopy(dict(value)) for key, value in parameters.items()},
        "counters": {name: int(getattr(model, name)) for name in COUNTERS if hasattr(model, name)},
    }
    if (weight := getattr(model, "log_ent_coef", None)) is not None:
        known["log_ent_coef"] = weight.detach().clone()
    return known


def teach(model: "BaseAlgorithm", known: Mapping[str, Any]) -> None:
    """Give a model the knowledge of another one, which may have had another number of worlds.

    Raises:
        KeyError, RuntimeError: when it is that of another algorithm or of other networks.
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
    """Return what a buffer holds, oldest first, ``[M, ...]`` by the names of its columns."""
    size, first = buffer.size(), buffer.pos if buffer.full else 0
    order = (np.arange(size) + first) % buffer.buffer_size
    return {name: torch.from_numpy(getattr(buffer, name)[order]).flatten(0, 1) for name in COLUMNS}


def remember(buffer: "ReplayBuffer", rows: Mapping[str, Tensor]) -> None:
    """Fill an empty buffer with the latest of transitions ``[M, ...]``, as many as it has room for."""
    steps = min(len(rows["rewards"]) // buffer.n_envs, buffer.buffer_size)
    if steps == 0:
        return
    for name in COLUMNS:
        latest = rows[name][-steps * buffer.n_envs :].numpy()
        getattr(buffer, name)[:steps] = latest.reshape(steps, buffer.n_envs, *latest.shape[1:])
    buffer.pos, buffer.full = steps % buffer.buffer_size, steps == buffer.buffer_size


def _replay_buffer(model: "BaseAlgorithm") -> "ReplayBuffer | None":
    """Return the replay buffer that off-policy algorithms have."""
    return getattr(model, "replay_buffer", None)


def finite(model: "BaseAlgorithm") -> bool:
    """Return whether no parameter of a model is NaN or infinite."""
    return all(bool(value.isfinite().all()) for value in model.policy.parameters())


@contextmanager
def global_streams(seed: int, device: torch.device) -> Iterator[None]:
    """Seed the global generators of torch and NumPy, from which SB3 draws, and leave them as they were before."""
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
