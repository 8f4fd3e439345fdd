"""MLPs with tanh and their derivatives in C++ (``mlp.cpp``), on machines where it can be compiled.

A library of tensors reads and writes memory for each bias, tanh, slope and sum; here a block of rows goes through all
layers in a core's cache. Results are those of torch up to the order of summation. They depend neither on the number of
threads, as each network belongs to one, nor, for the outputs of a row, on the other rows.

Learners that differentiate through gradients need derivatives of several orders, each of which is an autograd function:
outputs; gradients of the parameters for given slopes, that is, for given derivatives with respect to the outputs; and
how outputs and gradients change along a direction of the parameters (Pearlmutter 1994). The last is linear in the
direction, and can be differentiated again with respect to it.
"""

import ctypes
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from metarl.devices.native import in_threads, library

SOURCE = Path(__file__).with_name("mlp.cpp")
MULTIPLE = 16  # as in the source: what padded sizes are multiples of
# Weights times rows below which a pass runs on one thread.
SMALL = 10_000_000


class Networks(ctypes.Structure):
    """``struct Networks`` of the source, with pointers to tensors, which must exist as long as it is used."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("networks", "rows", "layers")),
        ("sizes", ctypes.POINTER(ctypes.c_int64)),
        ("inputs", ctypes.c_void_p),
        ("parameters", ctypes.POINTER(ctypes.c_void_p)),
        ("parameter_steps", ctypes.POINTER(ctypes.c_int64)),
        *((name, ctypes.c_void_p) for name in ("hidden", "slopes", "outputs", "output_slopes")),
        ("directions", ctypes.POINTER(ctypes.c_void_p)),
        ("direction_steps", ctypes.POINTER(ctypes.c_int64)),
        ("gradients", ctypes.POINTER(ctypes.c_void_p)),
    )


@cache
def _library() -> ctypes.CDLL | None:
    found = library(SOURCE)
    if found is not None:
        for name in ("forward", "back", "push"):
            getattr(found, name).argtypes = (ctypes.POINTER(Networks), ctypes.c_int64, ctypes.c_int64)
    return found


def supports(inputs: Tensor, weight: Tensor) -> bool:
    """Return whether networks can be evaluated here: in float32 on the CPU, at inputs that need no gradient themselves.

    Args:
        inputs: ``[N, B, D]``.
        weight: of the first layer, ``[N, D, units]``.
    """
    # Not a subclass: those that only record operations have no memory to read.
    plain = type(inputs) is Tensor and inputs.device.type == "cpu" and not torch.compiler.is_compiling()
    fits = inputs.dtype == weight.dtype == torch.float32 and weight.shape[:2] == (inputs.shape[0], inputs.shape[2])
    return plain and fits and not inputs.requires_grad and _library() is not None


def evaluate(inputs: Tensor, parameters: Sequence[Tensor]) -> Tensor:
    """Return the outputs ``[N, B, D']`` of N networks at inputs ``[N, B, D]``.

    Args:
        inputs: such that ``supports`` is true.
        parameters: weights ``[N, inputs, outputs]`` and biases ``[N, outputs]`` of each layer in turn, float32.
    """
    inputs = inputs.contiguous()
    if not torch.is_grad_enabled():
        outputs = _buffer(inputs, parameters[-1].shape[-1])
        _run("forward", inputs, parameters, outputs=outputs)
        return outputs
    found: Tensor = _Outputs.apply(inputs, *parameters)  # type: ignore[no-untyped-call]
    return found


class _Outputs(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, *parameters: Tensor) -> Tensor:
        outputs = _buffer(inputs, parameters[-1].shape[-1])
        hidden = _buffer(inputs, sum(_padded(bias.shape[-1]) for bias in parameters[1:-1:2]))
        _run("forward", inputs, parameters, hidden, outputs=outputs)
        ctx.save_for_backward(inputs, hidden, *parameters)
        return outputs

    @staticmethod
    def backward(ctx: Any, output_slopes: Tensor) -> Any:
        # Without a graph nothing is differentiated again.
        gradients = _Gradients.apply(torch.is_grad_enabled(), output_slopes, *ctx.saved_tensors)  # type: ignore[no-untyped-call]
        return None, *gradients


class _Gradients(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, again: bool, output_slopes: Tensor, inputs: Tensor, hidden: Tensor, *parameters: Tensor
    ) -> Any:
        slopes = _buffer(inputs, hidden.shape[-1] + _padded(output_slopes.shape[-1])) if again else None
        gradients = _like(parameters)
        given = output_slopes.contiguous()
        _run("back", inputs, parameters, hidden, slopes, output_slopes=given, gradients=gradients)
        ctx.save_for_backward(output_slopes, inputs, hidden, slopes, *parameters)
        return tuple(gradients)

    @staticmethod
    def backward(ctx: Any, *directions: Tensor) -> Any:
        changes, *bends = _Changes.apply(*ctx.saved_tensors, *directions)  # type: ignore[no-untyped-call]
        return None, changes, None, None, *bends


class _Changes(torch.autograd.Function):
    """The changes of outputs and of gradients; autograd adds how the slopes change."""

    @staticmethod
    def forward(ctx: Any, output_slopes: Tensor, inputs: Tensor, hidden: Tensor, slopes: Tensor, *both: Tensor) -> Any:
        parameters, directions = both[: len(both) // 2], both[len(both) // 2 :]
        ctx.save_for_backward(output_slopes, inputs, hidden, slopes, *parameters)
        outputs = _buffer(inputs, output_slopes.shape[-1])
        gradients = [] if _outputs_only.get() else _like(parameters)
        _run("push", inputs, parameters, hidden, slopes, outputs, directions=directions, gradients=gradients)
        return outputs, *(gradients or _unknown(parameters))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, output_slopes: Tensor, *directions: Tensor) -> Any:
        first_slopes, inputs, hidden, slopes, *parameters = ctx.saved_tensors
        outputs, gradients = _buffer(inputs, output_slopes.shape[-1]), _like(parameters)
        _run("push", inputs, parameters, hidden, slopes, outputs, output_slopes.contiguous(), directions, gradients)
        return *_unknown([first_slopes]), None, None, None, *_unknown(parameters), *gradients


_outputs_only = ContextVar("outputs_only", default=False)


@contextmanager
def changes_of_outputs_only() -> Iterator[None]:
    """Skip, inside the block, unneeded derivatives of gradients with respect to parameters, which are then NaN."""
    before = _outputs_only.set(True)
    try:
        yield
    finally:
        _outputs_only.reset(before)


def _unknown(like: Sequence[Tensor]) -> list[Tensor]:
    """Return NaN for derivatives that are not computed, so that nothing takes them for zero."""
    return [value.new_full((), torch.nan).expand_as(value) for value in like]


def _like(parameters: Sequence[Tensor]) -> list[Tensor]:
    return [torch.empty_like(value, memory_format=torch.contiguous_format) for value in parameters]


def _padded(size: int) -> int:
    return -(-size // MULTIPLE) * MULTIPLE


def _buffer(inputs: Tensor, size: int) -> Tensor:
    return inputs.new_empty(*inputs.shape[:2], size)


def _run(
    name: str,
    inputs: Tensor,
    parameters: Sequence[Tensor],
    hidden: Tensor | None = None,
    slopes: Tensor | None = None,
    outputs: Tensor | None = None,
    output_slopes: Tensor | None = None,
    directions: Sequence[Tensor] = (),
    gradients: Sequence[Tensor] = (),
) -> None:
    """Call a function of the source for all networks, with contiguous tensors, except parameters and directions."""
    parameters, directions = [_dense(value) for value in parameters], [_dense(value) for value in directions]
    sizes = (inputs.shape[-1], *(bias.shape[-1] for bias in parameters[1::2]))
    networks = Networks(
        *inputs.shape[:2],
        len(sizes) - 1,
        (ctypes.c_int64 * len(sizes))(*sizes),
        inputs.data_ptr(),
        *_list(parameters),
        *(None if value is None else value.data_ptr() for value in (hidden, slopes, outputs, output_slopes)),
        *_list(directions),
        _list(gradients)[0],
    )

    def work(first: int, last: int) -> None:
        getattr(_library(), name)(networks, first, last)

    count, rows = inputs.shape[:2]
    if count * rows * sum(map(math.prod, pairwise(sizes))) >= SMALL:
        in_threads(work, count)
    else:
        work(0, count)


def _dense(value: Tensor) -> Tensor:
    """Return the parameters of N networks such that each network's are contiguous."""
    dense = (value.shape[-1], 1) if value.ndim == 3 else (1,)
    return value if value.stride()[1:] == dense else value.contiguous()


def _list(values: Sequence[Tensor]) -> tuple[Any, Any]:
    """Return pointers to tensors, and their distances from one network to the next; nothing if there are none."""
    if not values:
        return None, None
    count = len(values)
    pointers = (ctypes.c_void_p * count)(*(value.data_ptr() for value in values))
    return pointers, (ctypes.c_int64 * count)(*(value.stride(0) for value in values))
