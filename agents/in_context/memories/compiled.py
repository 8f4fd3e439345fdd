"""GRU and LSTM over whole trials in C++ (``recurrence.cpp``), on machines where it can be compiled.

They have the parameters of torch's layers and give the same results as ``recurrence``, up to the order of summation.
"""

import ctypes
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import pad

from metarl.devices.native import in_threads, library

SOURCE = Path(__file__).with_name("recurrence.cpp")
# As in the source: trials that are processed together, and the number of which sizes must be a multiple.
ROWS, WIDTH = 8, 16
# Multiplications per pass and gate below which it runs on one thread.
SMALL = 4_000_000
COUNTS = ("trials", "steps", "entries", "size", "padded")
# What is saved for the backward pass; the last one exists only in an LSTM.
KEPT = ("entered", "gates", "states", "cells")
Part = TypeVar("Part")


class Trials(ctypes.Structure):
    """``struct Trials`` of the source, with pointers to tensors, which must exist as long as it is used."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in COUNTS),
        *((name, ctypes.c_void_p) for name in ("inputs", "hidden", "cell", "weight_in", "weight", "bias")),
        *((name, ctypes.c_void_p) for name in ("entered", "states", "cells", "gates", "outputs", "cell_outputs")),
        *((name, ctypes.c_void_p) for name in ("grad_outputs", "grad_cell_outputs", "back_in", "back")),
        *((name, ctypes.c_void_p) for name in ("grad_inputs", "grad_hidden", "grad_cell")),
    )


@cache
def _library() -> ctypes.CDLL | None:
    found = library(SOURCE)
    if found is not None:
        found.workspace.restype = ctypes.c_int64
        found.workspace.argtypes = (ctypes.c_int64, ctypes.c_int64)
        for name in ("gru", "lstm"):
            passes = (ctypes.POINTER(Trials), ctypes.c_int64, ctypes.c_int64)
            getattr(found, name).argtypes = passes
            getattr(found, f"{name}_back").argtypes = (*passes, *[ctypes.c_void_p] * 3)
    return found


def supports(inputs: Tensor, size: int) -> bool:
    """Return whether a layer can be run here: float32 on the CPU, a size that is a multiple of 16, and a compiler."""
    fits = inputs.device.type == "cpu" and inputs.dtype == torch.float32 and not size % WIDTH
    return fits and _library() is not None


class CompiledGru(torch.autograd.Function):
    """A GRU with the parameters of ``torch.nn.GRU``."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, hidden: Tensor, w_in: Tensor, w: Tensor, b_in: Tensor, b: Tensor) -> Tensor:
        """Return the state after each step ``[B, L, H]`` of inputs ``[B, L, D]``, starting from ``[B, H]``."""
        size = hidden.shape[1]
        # The candidate's recurrent term is a separate block, because the reset gate scales it but not the input term.
        weights = {
            "weight_in": _with_bias(w_in, b_in + pad(b[: 2 * size], (0, size))),
            "weight": w.roll(size, 0).t(),
            "bias": b[2 * size :],
        }
        found = _forward("gru", {"inputs": inputs, "hidden": hidden, **weights})
        ctx.save_for_backward(w_in, w, *(found[name] for name in KEPT[:3]))
        return found["outputs"]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients with respect to all arguments."""
        w_in, w, *saved = ctx.saved_tensors
        size = w.shape[1]
        given = {"grad_outputs": grad_outputs, "back": w.roll(size, 0), **dict(zip(KEPT, saved, strict=False))}
        found, grad_weight, grad_weight_in = _backward("gru", given, w_in, ctx.needs_input_grad[0])
        grad_bias = grad_weight_in[-1]
        return (
            found.get("grad_inputs"),
            found["grad_hidden"],
            grad_weight_in[:-1, size:].t(),
            grad_weight.t().roll(-size, 0),
            grad_bias[size:],
            grad_bias[: 3 * size].roll(-size),
        )


class CompiledLstm(torch.autograd.Function):
    """An LSTM with the parameters of ``torch.nn.LSTM``."""

    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, hidden: Tensor, cell: Tensor, w_in: Tensor, w: Tensor, b_in: Tensor, b: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return states and cells after each step ``[B, L, H]`` of inputs ``[B, L, D]``, starting from ``[B, H]``."""
        weights = {"weight_in": _with_bias(w_in, b_in + b), "weight": w.t()}
        found = _forward("lstm", {"inputs": inputs, "hidden": hidden, "cell": cell, **weights})
        ctx.save_for_backward(w_in, w, *(found[name] for name in KEPT))
        return found["outputs"], found["cell_outputs"]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_outputs: Tensor, grad_cell_outputs: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients with respect to all arguments."""
        w_in, w, *saved = ctx.saved_tensors
        given = {"grad_outputs": grad_outputs, "grad_cell_outputs": grad_cell_outputs, "back": w}
        given |= dict(zip(KEPT, saved, strict=True))
        found, grad_weight, grad_weight_in = _backward("lstm", given, w_in, ctx.needs_input_grad[0])
        grad_bias = grad_weight_in[-1]
        begun = found["grad_hidden"], found["grad_cell"]
        return found.get("grad_inputs"), *begun, grad_weight_in[:-1].t(), grad_weight.t(), grad_bias, grad_bias


def read_gru(inputs: Tensor, hidden: Tensor, layer: nn.GRU) -> Tensor:
    """Return the state after each step ``[B, L, H]`` of inputs ``[B, L, D]``, starting from ``[B, H]``."""
    found: Tensor = CompiledGru.apply(inputs, hidden, *layer.parameters())  # type: ignore[no-untyped-call]
    return found


def read_lstm(inputs: Tensor, hidden: Tensor, cell: Tensor, layer: nn.LSTM) -> tuple[Tensor, Tensor]:
    """Return states and cells after each step ``[B, L, H]`` of inputs ``[B, L, D]``, starting from ``[B, H]``."""
    units, cells = CompiledLstm.apply(inputs, hidden, cell, *layer.parameters())  # type: ignore[no-untyped-call]
    return units, cells


def _with_bias(w_in: Tensor, bias: Tensor) -> Tensor:
    """Append a bias ``[G]`` to weights ``[G, D]`` as the weights of a constant input; returns ``[D + 1, G]``."""
    return torch.cat([w_in, bias.unsqueeze(1)], 1).t()


def _forward(kind: str, given: dict[str, Tensor]) -> dict[str, Tensor]:
    """Run the forward pass; return ``outputs`` ``[B, L, H]``, ``KEPT``, and an LSTM's ``cell_outputs``.

    Args:
        kind: ``gru`` or ``lstm``.
        given: ``inputs`` ``[B, L, D]``, ``hidden`` ``[B, H]``, ``weight_in`` ``[D + 1, G]``, ``weight`` ``[H, G]``;
            ``bias`` ``[H]`` or ``cell`` ``[B, H]``.
    """
    given = {name: each.contiguous() for name, each in given.items()}
    inputs, (trials, steps, entries), size = given["inputs"], given["inputs"].shape, len(given["weight"])
    blocks = -(-trials // ROWS)
    shapes = {
        "entered": (blocks, steps, ROWS, entries + 1),
        "gates": (blocks, steps, ROWS, 4 * size),
        "states": (blocks, steps + 1, ROWS, size),
        "outputs": (trials, steps, size),
    }
    if "cell" in given:
        shapes |= {"cells": shapes["states"], "cell_outputs": shapes["outputs"]}
    found = {name: inputs.new_empty(shape) for name, shape in shapes.items()}
    arguments = _trials((trials, steps, entries, size, 0), {**given, **found})
    _each(lambda first, last: getattr(_library(), kind)(arguments, first, last), arguments)
    return found


def _backward(
    kind: str, given: dict[str, Tensor], w_in: Tensor, wants_inputs: bool
) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Run the backward pass.

    Args:
        kind: ``gru`` or ``lstm``.
        given: ``KEPT``, ``back`` ``[G, H]``, and ``grad_outputs`` and ``grad_cell_outputs`` ``[B, L, H]``.
        w_in: ``[G, D]``.
        wants_inputs: whether to compute the gradient of the inputs.

    Returns:
        ``grad_inputs``, ``grad_hidden`` and ``grad_cell``; and the gradients of ``_forward``'s ``weight`` and
        ``weight_in``.
    """
    (trials, steps, size), entries = given["grad_outputs"].shape, w_in.shape[1]
    missing = -entries % WIDTH
    given = {name: each.contiguous() for name, each in {**given, "back_in": pad(w_in, (0, missing))}.items()}
    grad_outputs, blocks = given["grad_outputs"], len(given["gates"])
    found = {"grad_hidden": grad_outputs.new_zeros(blocks * ROWS, size)}
    if "cells" in given:
        found["grad_cell"] = torch.zeros_like(found["grad_hidden"])
    if wants_inputs:
        found["grad_inputs"] = grad_outputs.new_empty(trials, steps, entries + missing)
    arguments = _trials((trials, steps, entries, size, entries + missing), {**given, **found})
    compiled: Any = _library()

    def work(first: int, last: int) -> tuple[Tensor, Tensor]:
        weights = grad_outputs.new_zeros(size, len(given["back"])), grad_outputs.new_zeros(entries + 1, 4 * size)
        workspace = grad_outputs.new_empty(compiled.workspace(size, entries + missing))
        pointers = (each.data_ptr() for each in (*weights, workspace))
        getattr(compiled, f"{kind}_back")(arguments, first, last, *pointers)
        return weights

    grad_weight, grad_weight_in = (torch.stack(parts).sum(0) for parts in zip(*_each(work, arguments), strict=True))
    found = {name: each[:trials] for name, each in found.items()}
    if wants_inputs:
        found["grad_inputs"] = found["grad_inputs"][..., :entries]
    return found, grad_weight, grad_weight_in


def _trials(counts: tuple[int, ...], tensors: dict[str, Tensor]) -> Trials:
    pointers = {name: each.data_ptr() for name, each in tensors.items()}
    return Trials(**dict(zip(COUNTS, counts, strict=True)), **pointers)


def _each(work: Callable[[int, int], Part], trials: Trials) -> list[Part]:
    """Call ``work(first, last)`` for all blocks of trials, on as many threads as torch has if that pays off."""
    blocks = -(-trials.trials // ROWS)
    enough = trials.size**2 * trials.trials * trials.steps >= SMALL
    return in_threads(work, blocks) if enough else [work(0, blocks)]
