"""Work on a device that is recorded once, and replayed without its Python code over the same memory.

What a graph reads and writes has to stay where it was when it was recorded: ``tensors_of`` finds the tensors of a
state, so that others can be copied over them, and ``copy_of`` gives a state memory of its own.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from tensordict import TensorDict
from torch import Tensor


class Graph(Protocol):
    """Recorded work."""

    def replay(self) -> None:
        """Do it again."""
        ...


Recorder = Callable[[Callable[[], None], Sequence[torch.Generator]], Graph]


def record_on_cuda(work: Callable[[], None], generators: Sequence[torch.Generator]) -> Graph:
    """Record work as a CUDA graph, without doing it.

    Args:
        work: must not wait for the device, and must have been done before, so that its kernels are loaded.
        generators: that it draws from.
    """
    graph = torch.cuda.CUDAGraph()
    for stream in generators:
        graph.register_generator_state(stream)
    with torch.cuda.graph(graph):
        work()
    return graph


# By type of device.
RECORDERS: dict[str, Recorder] = {"cuda": record_on_cuda}


def tensors_of(state: Any) -> list[Tensor]:
    """Return the tensors in a state: a tensor, None, or dicts, TensorDicts and dataclasses of states."""
    if isinstance(state, Tensor):
        return [state]
    return [tensor for _, part in _parts(state) for tensor in tensors_of(part)]


def paths_of(state: Any, path: str = "") -> list[str]:
    """Return a name for each of ``tensors_of``: where it is in the state, such as ``trial.memory.hidden``."""
    if isinstance(state, Tensor):
        return [path]
    return [found for name, part in _parts(state) for found in paths_of(part, f"{path}.{name}".lstrip("."))]


def copy_of(state: Any) -> Any:
    """Return a state with the same values in memory of its own."""
    if isinstance(state, Tensor):
        return state.clone(memory_format=torch.contiguous_format)  # also of a tensor that was expanded
    copies = {name: copy_of(part) for name, part in _parts(state)}
    if isinstance(state, TensorDict):
        return TensorDict(copies, state.batch_size)
    if dataclasses.is_dataclass(state) and not isinstance(state, type):
        return dataclasses.replace(state, **copies)
    return copies if isinstance(state, dict) else state


def form_of(state: Any) -> Any:
    """Return the form of a state: if two states have the same form, their tensors can be copied over each other."""
    if isinstance(state, Tensor):
        return tuple(state.shape), state.dtype
    return type(state).__name__, tuple((name, form_of(part)) for name, part in _parts(state))


def _parts(state: Any) -> list[tuple[str, Any]]:
    if isinstance(state, dict | TensorDict):
        return [(str(name), state[name]) for name in sorted(state.keys())]
    if dataclasses.is_dataclass(state):
        # The state that an open state was opened from has no part in acting; see ``learner.OpenState``.
        fields = [field.name for field in dataclasses.fields(state) if field.name != "state"]
        return [(name, getattr(state, name)) for name in fields]
    return []
