"""A device that is none: its tensors live on the CPU, say that they do not, and behave like those of a GPU.

``PretendDevice`` is a context. Inside it ``device="pretend"`` makes such tensors; mixing them with the CPU's raises;
every operation for which the host would wait for a GPU is noted with the line that asked for it; and a piece of work
can be recorded as a graph, which is replayed over the same memory without its Python code, as a CUDA graph is.
"""

import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, NamedTuple
from unittest import mock
from weakref import WeakValueDictionary

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

NAME = "pretend"
ROOT = Path(__file__).parents[1]
aten = torch.ops.aten
# What brings a number, a shape or a verdict from the device to the host.
READS = {"_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "_unique2", "unique_dim"}
READS |= {"unique_consecutive", "bincount", "repeat_interleave", "multinomial", "_linalg_check_errors"}
COPIES = {"_to_copy", "copy_", "_foreach_copy_"}
INDEXING = {"index", "index_put", "index_put_", "_unsafe_index"}
# Made on the CPU, then copied, in C++ where no mode sees it.
FROM_HOST = {torch.tensor, torch.as_tensor, torch.asarray, Tensor.new_tensor}


class MixedDevices(RuntimeError):
    """Raised where a GPU would refuse an operation with tensors or generators of two devices."""


class _Module(_DummyBackendModule):
    """What ``torch.pretend`` is, as ``torch.cuda``."""

    active: "PretendDevice | None" = None

    def synchronize(self) -> None:
        """Wait for the device."""
        if self.active is not None:
            self.active.wait("a synchronization")


@cache
def device() -> torch.device:
    """Register the device with torch, once in a process, and return it."""
    _setup_privateuseone_for_python_backend(NAME, MODULE)
    return torch.device(NAME, 0)


def is_here(place: Any) -> bool:
    """Return whether a device, by itself or by name, is this one."""
    return place is not None and torch.device(place).type == NAME


MODULE = _Module()


class PretendTensor(torch.Tensor):
    """A tensor of the device; ``content`` has its values and shares its memory with views of it."""

    content: Tensor

    @staticmethod
    def __new__(cls, content: Tensor) -> "PretendTensor":
        layout = {"strides": content.stride(), "storage_offset": content.storage_offset(), "dtype": content.dtype}
        made: PretendTensor = torch.Tensor._make_wrapper_subclass(cls, content.size(), device=device(), **layout)  # type: ignore[attr-defined]
        made.content = content
        return made

    def __repr__(self, *, tensor_contents: object = None) -> str:
        return f"PretendTensor({self.content})"

    def untyped_storage(self) -> torch.UntypedStorage:
        """Return the memory of the values."""
        return self.content.untyped_storage()

    def tolist(self) -> Any:
        """Return the values, which are copied to the host."""
        return self.cpu().tolist()

    def numpy(self, *, force: bool = False) -> Any:
        """Return a copy of the values on the host, if it is forced."""
        if not force:
            raise TypeError(f"can't convert {NAME} device type tensor to numpy: copy it to the host first")
        return self.detach().cpu().numpy()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise RuntimeError(f"{func} outside of the pretend device")


class PretendGenerator(torch.Generator):
    """What ``torch.Generator`` is meanwhile: a generator of the device draws on the CPU."""

    # By address, because what comes out of torch is another object for the same generator.
    known: ClassVar[WeakValueDictionary[int, torch.Generator]] = WeakValueDictionary()

    def __new__(cls, device: Any = "cpu") -> Any:
        if not is_here(device):
            return GENERATOR(device)
        made = super().__new__(cls)
        cls.known[made._cdata] = made
        return made

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return device()


GENERATOR = torch.Generator


class Outside(NamedTuple):
    """A tensor that a graph did not make itself: it knows the memory, and does not keep it from being freed."""

    storage: StorageWeakRef
    dtype: torch.dtype
    layout: tuple[Any, ...]

    @classmethod
    def of(cls, tensor: Tensor) -> "Outside":
        layout = (tensor.storage_offset(), tensor.size(), tensor.stride())
        return cls(StorageWeakRef(tensor.untyped_storage()), tensor.dtype, layout)

    def tensor(self) -> Tensor:
        storage = torch.UntypedStorage._new_with_weak_ptr(self.storage.cdata)  # type: ignore[attr-defined]
        if storage is None:
            raise RuntimeError("a recorded graph reads memory that has been freed since")
        return torch.empty(0, dtype=self.dtype).set_(storage, *self.layout)


class Graph:
    """Operations in the order in which they were recorded."""

    def __init__(self, generators: Sequence[torch.Generator]) -> None:
        self.generators = generators
        self._made: set[int] = set()
        self._steps: list[tuple[Callable[..., Any], Any, list[Tensor]]] = []
        self._before: dict[int, tuple[torch.UntypedStorage, torch.UntypedStorage]] = {}

    def keep(self, tensors: Sequence[Tensor]) -> None:
        """Remember what outside memory holds before an operation may change it."""
        for storage in (each.untyped_storage() for each in tensors if _memory(each) not in self._made):
            self._before.setdefault(storage._cdata, (storage, storage.clone()))

    def put_back(self) -> None:
        """Give outside memory what it contained before the recording."""
        for storage, before in self._before.values():
            storage.copy_(before)
        self._before.clear()

    def add(self, func: Callable[..., Any], args: Any, kwargs: Any, result: Any) -> None:
        """Record an operation; its results are memory of the graph, but for views of what it was given."""
        new = _new((args, kwargs), result)
        self._made |= {_memory(leaf) for leaf in new}
        self._steps.append((func, _map(self._reference, (args, kwargs)), new))

    def replay(self) -> None:
        """Compute everything again, in the same memory."""
        with _disable_current_modes():
            for func, references, kept in self._steps:
                args, kwargs = _map(_resolved, references)
                for memory, value in zip(kept, _new((args, kwargs), func(*args, **kwargs)), strict=True):
                    memory.copy_(value)

    def _reference(self, leaf: Any) -> Any:
        return Outside.of(leaf) if isinstance(leaf, Tensor) and leaf.ndim and _memory(leaf) not in self._made else leaf


def _leaves(value: Any) -> list[Any]:
    """Return what is in nested tuples, lists and dictionaries, the only containers that operations take and return."""
    if type(value) in (tuple, list):
        return [leaf for part in value for leaf in _leaves(part)]
    return _leaves(list(value.values())) if type(value) is dict else [value]


def _map(change: Callable[[Any], Any], value: Any) -> Any:
    """Return nested containers with each leaf changed."""
    if type(value) in (tuple, list):
        return type(value)([_map(change, part) for part in value])
    return {key: _map(change, part) for key, part in value.items()} if type(value) is dict else change(value)


def _resolved(leaf: Any) -> Any:
    return leaf.tensor() if isinstance(leaf, Outside) else leaf


def _new(given: Any, result: Any) -> list[Tensor]:
    """Return the tensors of a result that are no views of what was given."""
    known = {_memory(leaf) for leaf in _leaves(given) if isinstance(leaf, Tensor)}
    return [leaf for leaf in _leaves(result) if isinstance(leaf, Tensor) and _memory(leaf) not in known]


def _memory(tensor: Tensor) -> int:
    address: int = tensor.untyped_storage()._cdata
    return address


class _FromHost(TorchFunctionMode):
    """Makes ``torch.tensor(..., device="pretend")`` and its kind a copy from the CPU."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func not in FROM_HOST:
            return func(*args, **kwargs)
        target = kwargs.pop("device", args[0].device if func is Tensor.new_tensor else None)
        *_, data = args[:2] if func is Tensor.new_tensor else args[:1]
        if isinstance(data, Tensor):
            return data.to(**{key: value for key, value in {"device": target, **kwargs}.items() if value is not None})
        made = (torch.tensor if func is Tensor.new_tensor else func)(data, **kwargs)
        return made.to(target) if is_here(target) else made


class PretendDevice(TorchDispatchMode):
    """The device, while it is there.

    Attributes:
        waits: what the host waited for, and where: ``operation at file:line``.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []
        self._graph: Graph | None = None
        device()

    def __enter__(self) -> "PretendDevice":
        self._stack = ExitStack()
        self._stack.enter_context(mock.patch.object(torch, "Generator", PretendGenerator))
        # A worker thread of autograd's would have the device to itself; one thread is enough.
        self._stack.enter_context(torch.autograd.set_multithreading_enabled(False))
        self._stack.enter_context(_FromHost())
        self._stack.enter_context(mock.patch.object(MODULE, "active", self))
        super().__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        super().__exit__(*exception)
        self._stack.close()

    def record(self, work: Callable[[], None], generators: Sequence[torch.Generator]) -> Graph:
        """Record a piece of work, as ``metarl.devices.graphs.record_on_cuda`` does; nothing may wait within it.

        On CUDA it is not done meanwhile; here it is, and what it changed is put back.
        """
        self._graph = graph = Graph(generators)
        states = [stream.get_state() for stream in generators]
        try:
            work()
        finally:
            self._graph = None
        for stream, state in zip(generators, states, strict=True):
            stream.set_state(state)
        graph.put_back()
        return graph

    def outside(self, call: Callable[[], None]) -> None:
        """Run work on the device's memory that is not torch's, and record it if a graph is being recorded."""
        if self._graph is None:
            call()
        else:
            self._graph.add(call, (), {}, None)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        leaves = [leaf for leaf in _leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        ours = [leaf for leaf in leaves if isinstance(leaf, PretendTensor)]
        here = is_here(kwargs["device"]) if kwargs.get("device") is not None else bool(ours)
        if not ours and not here and kwargs.get("generator") is None:
            return func(*args, **kwargs)
        self._note_waits(func, args, kwargs, bool(ours), here)
        self._check_devices(func, args, kwargs, leaves, here)
        plain_args, plain_kwargs = _map(_plain, (args, kwargs))
        compute = SUBSTITUTES.get(func, func)
        if self._graph is not None and func._schema.is_mutable:
            self._graph.keep([leaf.content for leaf in ours])
        result = compute(*plain_args, **plain_kwargs)
        if self._graph is not None and here:
            self._graph.add(compute, plain_args, plain_kwargs, result)
        known = {id(leaf.content): leaf for leaf in ours}

        def wrapped(leaf: Any) -> Any:
            if not isinstance(leaf, Tensor) or not here:
                return leaf
            return known[id(leaf)] if id(leaf) in known else PretendTensor(leaf)

        return args[0] if func is aten.copy_.default else _map(wrapped, result)

    def _note_waits(self, func: Any, args: Any, kwargs: Any, ours: bool, here: bool) -> None:
        name = func.overloadpacket.__name__
        if name in READS:
            self.wait(name)
        if name in INDEXING:
            indices = [leaf for leaf in _leaves(args[1]) if isinstance(leaf, Tensor)]
            # One number goes where a mask says without anybody counting.
            filled = name.startswith("index_put") and args[2].numel() == 1
            if any(leaf.dtype == torch.bool for leaf in indices) and not filled:
                self.wait("indexing by a mask")
            if any(not isinstance(leaf, PretendTensor) for leaf in indices) and ours:
                self.wait("a copy of indices to the device")
        if func in (aten._to_copy.default, aten.copy_.default):
            target, source = (here, ours) if name == "_to_copy" else (_ours(args[0]), _ours(args[1]))
            blocking = not (kwargs.get("non_blocking") or (name == "copy_" and any(args[2:])))
            if source and not target:
                self.wait("a copy to the host")
            elif target and not source and (blocking or self._graph is not None):
                self.wait("a copy to the device")

    def wait(self, what: str) -> None:
        """Note that the host waits."""
        where = f"{what} at {_line()}"
        if self._graph is not None:
            raise RuntimeError(f"{where}, which cannot be recorded")
        self.waits.append(where)

    def _check_devices(self, func: Any, args: Any, kwargs: Any, leaves: Sequence[Tensor], here: bool) -> None:
        stream = kwargs.get("generator")
        if stream is not None and (stream._cdata in PretendGenerator.known) != here:
            raise MixedDevices(f"{func} draws from another device's generator at {_line()}")
        if (
            stream is not None
            and self._graph is not None
            and all(stream._cdata != each._cdata for each in self._graph.generators)
        ):
            raise RuntimeError(f"{func} draws from a generator that the graph does not know at {_line()}")
        name = func.overloadpacket.__name__
        if name in INDEXING or name in COPIES:
            return
        strangers = [leaf for leaf in leaves if not isinstance(leaf, PretendTensor)]
        single = torch.Tag.pointwise in func.tags and all(leaf.ndim == 0 for leaf in strangers)
        written = strangers and func._schema.is_mutable and args[0] is strangers[0]
        if len(strangers) < len(leaves) and strangers and (not single or written):
            raise MixedDevices(f"{func} mixes tensors of the device and of the CPU at {_line()}")


def _ours(leaf: Any) -> bool:
    return isinstance(leaf, PretendTensor)


def _plain(leaf: Any) -> Any:
    if isinstance(leaf, PretendTensor):
        return leaf.content
    return torch.device("cpu") if isinstance(leaf, torch.device) and is_here(leaf) else leaf


def _line() -> str:
    """Return the line of the package that is running."""
    frame = sys._getframe(1)
    while frame is not None:
        if place := _place(frame.f_code.co_filename):
            return f"{place}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]
    return "the test"


@cache
def _place(file: str) -> str | None:
    """Return where in the repository a file of the package is."""
    path = Path(file)
    ours = path.is_relative_to(ROOT) and path.relative_to(ROOT).parts[0] in ("metarl", "agents", "envs")
    return str(path.relative_to(ROOT)) if ours else None


def _gru_cell(given: Tensor, recurrent: Tensor, hidden: Tensor, b: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    of_reset, of_update, of_candidate = (recurrent + c).chunk(3, 1)
    reset, update, candidate = (given + b).chunk(3, 1)
    reset, update = torch.sigmoid(reset + of_reset), torch.sigmoid(update + of_update)
    candidate = torch.tanh(candidate + reset * of_candidate)
    return torch.lerp(candidate, hidden, update), torch.cat([reset, update, candidate, of_candidate, hidden], 1)


def _gru_cell_backward(slopes: Tensor, kept: Tensor, has_bias: bool) -> tuple[Tensor, ...]:
    reset, update, candidate, of_candidate, hidden = kept.chunk(5, 1)
    by_update = slopes * (hidden - candidate) * update * (1 - update)
    by_candidate = slopes * (1 - update) * (1 - candidate.square())
    by_reset = by_candidate * of_candidate * reset * (1 - reset)
    given = torch.cat([by_reset, by_update, by_candidate], 1)
    recurrent = torch.cat([by_reset, by_update, by_candidate * reset], 1)
    return given, recurrent, slopes * update, given.sum(0), recurrent.sum(0)


def _lstm_cell(given: Tensor, recurrent: Tensor, cell: Tensor, b: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    write, forget, candidate, output = (given + b + recurrent + c).chunk(4, 1)
    kept = torch.sigmoid(forget) * cell + torch.sigmoid(write) * torch.tanh(candidate)
    return torch.sigmoid(output) * torch.tanh(kept), kept, torch.empty(0)


# Kernels that only accelerators have.
SUBSTITUTES: dict[Any, Callable[..., Any]] = {
    aten._thnn_fused_gru_cell.default: _gru_cell,
    aten._thnn_fused_gru_cell_backward.default: _gru_cell_backward,
    aten._thnn_fused_lstm_cell.default: _lstm_cell,
}
