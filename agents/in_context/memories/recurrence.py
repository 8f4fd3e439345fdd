"""Recurrences over whole sequences on the CPU: few large operations a step, and the backward pass by hand.

torch's own recurrent layers take a dozen small operations for each step and their autograd graph as many again. Here
the inputs' products of all steps are one multiplication before the loop, the gates of a step lie side by side so that a
few operations in place make them, what the backward pass needs of the gates' derivatives is computed for many steps at
once, and so are the gradients of the weights after them.

Tensors within a loop have the trials last, ``[L, rows, B]``: a step's gates are then contiguous.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from metarl.runtime import single_torch_thread

# Multiplications of a step, for each of its gates, below which a loop runs on one thread.
SMALL = 4_000_000
# Numbers of the gates that a backward pass works on at a time: 1 MiB, which stays in a core's cache.
CHUNK = 2**18


class GruSequence(torch.autograd.Function):
    """Gated recurrent units with the parameters of ``torch.nn.GRU``.

    ``gates`` ``[L, 4H, B]`` holds four blocks: what the last units bring to the candidate, the reset gate r, the update
    gate z, and the candidate n::

        n = tanh(W_in x + b_in + r * (W_hn h + b_hn))
        h' = n + z * (h - n)
    """

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, hidden: Tensor, w_in: Tensor, w: Tensor, b_in: Tensor, b: Tensor) -> Tensor:
        """Return the units after each step ``[B, L, H]`` of inputs ``[B, L, D]``, from units ``[B, H]`` on."""
        size, length = hidden.shape[1], inputs.shape[1]
        entries = inputs.permute(1, 2, 0)
        # The candidate's block comes first: its share of the last units is kept apart from that of the inputs.
        last_weight = w.roll(size, 0)
        bias = torch.cat([b[2 * size :], b_in[: 2 * size] + b[: 2 * size], b_in[2 * size :]])
        gates = _products(torch.cat([torch.zeros_like(w_in[:size]), w_in]), entries, bias)
        states = gates.new_empty(length + 1, size, len(inputs))
        states[0] = hidden.t()
        before = states.unbind(0)
        sums, both = gates[:, : 3 * size].unbind(0), gates[:, size : 3 * size].unbind(0)
        recurrent, reset, update, candidate = (block.unbind(0) for block in gates.chunk(4, 1))
        with _loop_threads(size, len(inputs)):
            for step in range(length):
                sums[step].addmm_(last_weight, before[step])
                both[step].sigmoid_()
                candidate[step].addcmul_(reset[step], recurrent[step]).tanh_()
                torch.lerp(candidate[step], before[step], update[step], out=before[step + 1])
        ctx.save_for_backward(entries, states, gates, w_in, last_weight)
        # Contiguous, as whatever multiplies it by a matrix would copy it each time.
        return states[1:].permute(2, 0, 1).contiguous()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slopes: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of all arguments."""
        entries, states, gates, w_in, last_weight = ctx.saved_tensors
        size, steps, back = states.shape[1], slopes.permute(1, 2, 0), last_weight.t().contiguous()
        total = torch.zeros_like(states[0])
        of_w_in, of_w, of_bias = torch.zeros_like(w_in), torch.zeros_like(last_weight), gates.new_zeros(4 * size)
        of_entries = torch.empty_like(entries) if ctx.needs_input_grad[0] else None
        chunk = max(1, CHUNK // gates[0].numel())
        room = gates.new_empty(min(chunk, len(gates)), *gates.shape[1:])
        with _loop_threads(size, len(slopes)):
            for last in range(len(gates), 0, -chunk):
                part = slice(max(0, last - chunk), last)
                changes = _gru_factors(gates[part], states[part], room[: part.stop - part.start])
                blocks, sums = (
                    changes.view(len(changes), 4, size, *changes.shape[2:]).unbind(0),
                    changes[:, : 3 * size].unbind(0),
                )
                keeps, own = gates[part, 2 * size : 3 * size].unbind(0), steps[part].contiguous().unbind(0)
                for step in reversed(range(len(own))):
                    total += own[step]
                    blocks[step].mul_(total)
                    total.mul_(keeps[step]).addmm_(back, sums[step])
                of_inputs = changes[:, size:]
                of_w.addbmm_(changes[:, : 3 * size], states[part].transpose(1, 2))
                of_w_in.addbmm_(of_inputs, entries[part].transpose(1, 2))
                of_bias += changes.sum((0, 2))
                if of_entries is not None:
                    torch.matmul(w_in.t(), of_inputs, out=of_entries[part])
        return (
            None if of_entries is None else of_entries.permute(2, 0, 1),
            total.t(),
            of_w_in,
            of_w.roll(-size, 0),
            of_bias[size:],
            of_bias[: 3 * size].roll(-size),
        )


def _gru_factors(gates: Tensor, states: Tensor, room: Tensor) -> Tensor:
    """Write into ``room`` ``[L, 4H, B]`` what the gradient by the units after a step is multiplied by for its gates.

    Args:
        gates: ``[L, 4H, B]``, see ``GruSequence``.
        states: units before each step ``[L, H, B]``.
        room: where the factors of the gradients by the gates' sums are written.
    """
    recurrent, reset, update, candidate = gates.chunk(4, 1)
    of_recurrent, of_reset, of_update, of_candidate = room.chunk(4, 1)
    kept = 1 - update
    torch.addcmul(kept, kept * candidate, candidate, value=-1, out=of_candidate)
    torch.mul(of_candidate, reset, out=of_recurrent)
    torch.mul(of_recurrent * (1 - reset), recurrent, out=of_reset)
    torch.mul(update * kept, states - candidate, out=of_update)
    return room


def read_gru(inputs: Tensor, hidden: Tensor, layer: nn.GRU) -> Tensor:
    """Return the units after each step ``[B, L, H]`` of inputs ``[B, L, D]``, from units ``[B, H]`` on."""
    found: Tensor = GruSequence.apply(inputs, hidden, *layer.parameters())  # type: ignore[no-untyped-call]
    return found


class LstmSequence(torch.autograd.Function):
    """Long short-term memory with the parameters of ``torch.nn.LSTM``.

    ``gates`` ``[L, 4H, B]`` holds four blocks: input gate i, forget gate f, candidate g, output gate o::

        c' = f * c + i * g
        h' = o * tanh(c')
    """

    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, hidden: Tensor, cell: Tensor, w_in: Tensor, w: Tensor, b_in: Tensor, b: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return units and cells after each step ``[B, L, H]`` of inputs ``[B, L, D]``, from ``[B, H]`` on."""
        size, length = hidden.shape[1], inputs.shape[1]
        entries = inputs.permute(1, 2, 0)
        gates = _products(w_in, entries, b_in + b)
        states, cells = gates.new_empty(2, length + 1, size, len(inputs))
        states[0], cells[0] = hidden.t(), cell.t()
        squashed = torch.empty_like(states[1:])
        units, kept, sums, tanh = (each.unbind(0) for each in (states, cells, gates, squashed))
        opening, candidate, output = (
            part.unbind(0) for part in (gates[:, : 2 * size], gates[:, 2 * size : 3 * size], gates[:, 3 * size :])
        )
        write, forget = (part.unbind(0) for part in gates[:, : 2 * size].chunk(2, 1))
        with _loop_threads(size, len(inputs)):
            for step in range(length):
                sums[step].addmm_(w, units[step])
                opening[step].sigmoid_()
                candidate[step].tanh_()
                output[step].sigmoid_()
                torch.mul(forget[step], kept[step], out=kept[step + 1]).addcmul_(write[step], candidate[step])
                torch.tanh(kept[step + 1], out=tanh[step])
                torch.mul(output[step], tanh[step], out=units[step + 1])
        ctx.save_for_backward(entries, states, cells, squashed, gates, w_in, w)
        return states[1:].permute(2, 0, 1), cells[1:].permute(2, 0, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slopes: Tensor, cell_slopes: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of all arguments."""
        entries, states, cells, squashed, gates, w_in, w = ctx.saved_tensors
        size, length = states.shape[1], len(gates)
        write, forget, candidate, output = gates.chunk(4, 1)
        # d(sums of i, f, g) = factors * dc, d(sum of o) = of_output * dh, and dc gets through_output * dh.
        factors = torch.cat(
            [
                candidate * write * (1 - write),
                cells[:-1] * forget * (1 - forget),
                write * (1 - candidate * candidate),
            ],
            1,
        ).view(length, 3, size, -1)
        of_output = squashed * output * (1 - output)
        through_output = output * (1 - squashed * squashed)
        totals, cell_totals = (each.permute(1, 2, 0).contiguous() for each in (slopes, cell_slopes))
        first, first_cell = torch.zeros_like(totals[0]), torch.zeros_like(totals[0])
        units, kept = (first, *totals.unbind(0)), (first_cell, *cell_totals.unbind(0))
        changes, back = torch.empty_like(gates), w.t().contiguous()
        sums, output_sums = changes.unbind(0), changes[:, 3 * size :].unbind(0)
        others, keeps = changes.view(length, 4, size, -1)[:, :3].unbind(0), forget.unbind(0)
        scales, output_scales, crossings = (each.unbind(0) for each in (factors, of_output, through_output))
        with _loop_threads(size, len(slopes)):
            for step in reversed(range(length)):
                kept[step + 1].addcmul_(units[step + 1], crossings[step])
                torch.mul(scales[step], kept[step + 1], out=others[step])
                torch.mul(output_scales[step], units[step + 1], out=output_sums[step])
                kept[step].addcmul_(kept[step + 1], keeps[step])
                units[step].addmm_(back, sums[step])
        bias = changes.sum((0, 2))
        return (
            torch.matmul(w_in.t(), changes).permute(2, 0, 1) if ctx.needs_input_grad[0] else None,
            first.t(),
            first_cell.t(),
            _weight_slopes(changes, entries),
            _weight_slopes(changes, states[:-1]),
            bias,
            bias,
        )


def read_lstm(inputs: Tensor, hidden: Tensor, cell: Tensor, layer: nn.LSTM) -> tuple[Tensor, Tensor]:
    """Return units and cells after each step ``[B, L, H]`` of inputs ``[B, L, D]``, from ``[B, H]`` on."""
    units, cells = LstmSequence.apply(inputs, hidden, cell, *layer.parameters())  # type: ignore[no-untyped-call]
    return units, cells


def _loop_threads(size: int, trials: int) -> AbstractContextManager[None]:
    """Return the context of a loop over steps, each of which multiplies ``[G, H]`` by ``[H, B]``.

    Where a step takes microseconds a second thread saves next to nothing, and waiting for it costs milliseconds
    whenever another process has the core.
    """
    return single_torch_thread() if size * size * trials < SMALL else nullcontext()


def _products(weight: Tensor, entries: Tensor, bias: Tensor) -> Tensor:
    """Return ``weight @ entries + bias`` of all steps: ``[G, D]``, ``[L, D, B]``, ``[G]`` to ``[L, G, B]``."""
    return torch.baddbmm(bias[:, None], weight.expand(len(entries), -1, -1), entries)


def _weight_slopes(changes: Tensor, entries: Tensor) -> Tensor:
    """Return the sum over steps and trials of ``[L, G, B]`` times ``[L, D, B]``, ``[G, D]``."""
    total = changes.new_zeros(changes.shape[1], entries.shape[1])
    return total.addbmm_(changes, entries.transpose(1, 2))
