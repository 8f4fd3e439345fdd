"""Recurrences over whole trials by loops in C++ (``recurrence.cpp``), where that can be compiled.

They have the parameters of torch's layers and give the same numbers as ``recurrence``, up to the order of summation.
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

from metarl.native import in_threads, library

SOURCE = Path(__file__).with_name("recurrence.cpp")
# As in the source: trials that are worked on together, and what numbers of units are a multiple of.
ROWS, WIDTH = 8, 16
# Multiplications of a pass, for each gate, below which it runs on one thread.
SMALL = 4_000_000
COUNTS = ("trials", "steps", "entries", "size", "padded")
# What the backward pass needs, the last of it only for long short-term memory.
KEPT = ("entered", "gates", "states", "cells")
Part = TypeVar("Part")


class Trials(ctypes.Structure):
    """``struct Trials`` of the source; pointers are those of tensors, which must live as long as it is used."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in COUNTS),
        *((name, ctypes.c_void_p) for name in ("inputs", "hidden", "cell", "weight_in", "weight", "bias")),
        *((name, ctypes.c_void_p) for name in ("entered", "states", "cells", "gates", "outputs", "cell_outputs")),
        *((name, ctypes.c_void_p) for name in ("slopes", "cell_slopes", "back_in", "back")),
        *((name, ctypes.c_void_p) for name in ("of_inputs", "of_hidden", "of_cell")),
    )


@cache
def _library() -> ctypes.CDLL | None:
    found = library(SOURCE)
    if found is not None:
        found.room.restype = ctypes.c_int64
        found.room.argtypes = (ctypes.c_int64, ctypes.c_int64)
        for name in ("gru", "lstm"):
            passes = (ctypes.POINTER(Trials), ctypes.c_int64, ctypes.c_int64)
            getattr(found, name).argtypes = passes
            getattr(found, f"{name}_back").argtypes = (*passes, *[ctypes.c_void_p] * 3)
    return found


def reads(inputs: Tensor, size: int) -> bool:
    """Return whether so many units read inputs here: float32 on the CPU, a multiple of 16, where it is compiled."""
    fits = inputs.device.type == "cpu" and inputs.dtype == torch.float32 and not size % WIDTH
    return fits and _library() is not None


class CompiledGru(torch.autograd.Function):
    """Gated recurrent units with the parameters of ``torch.nn.GRU``."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, hidden: Tensor, w_in: Tensor, w: Tensor, b_in: Tensor, b: Tensor) -> Tensor:
        """Return the units after each step ``[B, L, H]`` of inputs ``[B, L, D]``, from units ``[B, H]`` on."""
        size = hidden.shape[1]
        # The candidate's block comes first: its share of the last units is kept apart from that of the inputs.
        weights = {
            "weight_in": _with_bias(w_in, b_in + pad(b[: 2 * size], (0, size))),
            "weight": w.roll(size, 0).t(),
            "bias": b[2 * size :],
        }
        found = _read("gru", {"inputs": inputs, "hidden": hidden, **weights})
        ctx.save_for_backward(w_in, w, *(found[name] for name in KEPT[:3]))
        return found["outputs"]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slopes: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of all arguments."""
        w_in, w, *saved = ctx.saved_tensors
        size = w.shape[1]
        given = {"slopes": slopes, "back": w.roll(size, 0), **dict(zip(KEPT, saved, strict=False))}
        found, of_weight, of_weight_in = _read_back("gru", given, w_in, ctx.needs_input_grad[0])
        of_bias = of_weight_in[-1]
        return (
            found.get("of_inputs"),
            found["of_hidden"],
            of_weight_in[:-1, size:].t(),
            of_weight.t().roll(-size, 0),
            of_bias[size:],
            of_bias[: 3 * size].roll(-size),
        )


class CompiledLstm(torch.autograd.Function):
    """Long short-term memory with the parameters of ``torch.nn.LSTM``."""

    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, hidden: Tensor, cell: Tensor, w_in: Tensor, w: Tensor, b_in: Tensor, b: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return units and cells after each step ``[B, L, H]`` of inputs ``[B, L, D]``, from ``[B, H]`` on."""
        weights = {"weight_in": _with_bias(w_in, b_in + b), "weight": w.t()}
        found = _read("lstm", {"inputs": inputs, "hidden": hidden, "cell": cell, **weights})
        ctx.save_for_backward(w_in, w, *(found[name] for name in KEPT))
        return found["outputs"], found["cell_outputs"]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slopes: Tensor, cell_slopes: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of all arguments."""
        w_in, w, *saved = ctx.saved_tensors
        given = {"slopes": slopes, "cell_slopes": cell_slopes, "back": w, **dict(zip(KEPT, saved, strict=True))}
        found, of_weight, of_weight_in = _read_back("lstm", given, w_in, ctx.needs_input_grad[0])
        of_bias = of_weight_in[-1]
        begun = found["of_hidden"], found["of_cell"]
        return found.get("of_inputs"), *begun, of_weight_in[:-1].t(), of_weight.t(), of_bias, of_bias


def read_gru(inputs: Tensor, hidden: Tensor, layer: nn.GRU) -> Tensor:
    """Return the units after each step ``[B, L, H]`` of inputs ``[B, L, D]``, from units ``[B, H]`` on."""
    found: Tensor = CompiledGru.apply(inputs, hidden, *layer.parameters())  # type: ignore[no-untyped-call]
    return found


def read_lstm(inputs: Tensor, hidden: Tensor, cell: Tensor, layer: nn.LSTM) -> tuple[Tensor, Tensor]:
    """Return units and cells after each step ``[B, L, H]`` of inputs ``[B, L, D]``, from ``[B, H]`` on."""
    units, cells = CompiledLstm.apply(inputs, hidden, cell, *layer.parameters())  # type: ignore[no-untyped-call]
    return units, cells


def _with_bias(w_in: Tensor, bias: Tensor) -> Tensor:
    """Return weights ``[G, D]`` with the bias ``[G]`` as those of one more input, ``[D + 1, G]``."""
    return torch.cat([w_in, bias.unsqueeze(1)], 1).t()


def _read(kind: str, given: dict[str, Tensor]) -> dict[str, Tensor]:
    """Read trials; return ``outputs`` ``[B, L, H]``, ``KEPT``, and ``cell_outputs`` if there are cells.

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
    everything = _trials((trials, steps, entries, size, 0), {**given, **found})
    _each(lambda first, last: getattr(_library(), kind)(everything, first, last), everything)
    return found


def _read_back(
    kind: str, given: dict[str, Tensor], w_in: Tensor, wants_inputs: bool
) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Return the gradients by inputs, if they are wanted, and states, and those by both weights as ``_read`` has them.

    Args:
        kind: ``gru`` or ``lstm``.
        given: ``KEPT``, ``back`` ``[G, H]``, and ``slopes`` and ``cell_slopes``, gradients by outputs ``[B, L, H]``.
        w_in: ``[G, D]``.
        wants_inputs: whether those by inputs are wanted.

    Returns:
        ``of_inputs``, ``of_hidden`` and ``of_cell``; and the gradients by ``weight`` and ``weight_in``.
    """
    (trials, steps, size), entries = given["slopes"].shape, w_in.shape[1]
    missing = -entries % WIDTH
    given = {name: each.contiguous() for name, each in {**given, "back_in": pad(w_in, (0, missing))}.items()}
    slopes, blocks = given["slopes"], len(given["gates"])
    found = {"of_hidden": slopes.new_zeros(blocks * ROWS, size)}
    if "cells" in given:
        found["of_cell"] = torch.zeros_like(found["of_hidden"])
    if wants_inputs:
        found["of_inputs"] = slopes.new_empty(trials, steps, entries + missing)
    everything = _trials((trials, steps, entries, size, entries + missing), {**given, **found})
    compiled: Any = _library()

    def work(first: int, last: int) -> tuple[Tensor, Tensor]:
        weights = slopes.new_zeros(size, len(given["back"])), slopes.new_zeros(entries + 1, 4 * size)
        room = slopes.new_empty(compiled.room(size, entries + missing))
        pointers = (each.data_ptr() for each in (*weights, room))
        getattr(compiled, f"{kind}_back")(everything, first, last, *pointers)
        return weights

    of_weight, of_weight_in = (torch.stack(parts).sum(0) for parts in zip(*_each(work, everything), strict=True))
    found = {name: each[:trials] for name, each in found.items()}
    if wants_inputs:
        found["of_inputs"] = found["of_inputs"][..., :entries]
    return found, of_weight, of_weight_in


def _trials(counts: tuple[int, ...], tensors: dict[str, Tensor]) -> Trials:
    pointers = {name: each.data_ptr() for name, each in tensors.items()}
    return Trials(**dict(zip(COUNTS, counts, strict=True)), **pointers)


def _each(work: Callable[[int, int], Part], trials: Trials) -> list[Part]:
    """Call ``work(first, last)`` for all blocks of trials, on torch's threads if there is enough to do."""
    blocks = -(-trials.trials // ROWS)
    enough = trials.size**2 * trials.trials * trials.steps >= SMALL
    return in_threads(work, blocks) if enough else [work(0, blocks)]
