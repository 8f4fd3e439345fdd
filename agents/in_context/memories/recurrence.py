"""GRU and LSTM over whole sequences on the CPU: a few large operations per step, and a hand-written backward pass.

torch's own recurrent layers run a dozen small operations per step, and autograd as many again. Here one matrix product
before the loop projects the inputs of all steps, the gates of a step are adjacent so that a few in-place operations
compute them, and the backward pass computes the gates' derivatives and the gradients of the weights for many steps at
once.

Inside the loops trials are the last axis, ``[L, rows, B]``, so that a step's gates are contiguous.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from metarl.devices.runtime import single_torch_thread

# Multiplications per step and gate below which a loop runs on one thread.
SMALL = 4_000_000
# Gate activations that the backward pass processes at a time: 1 MiB, which stays in a core's cache.
CHUNK = 2**18


class GruSequence(torch.autograd.Function):
    """A GRU with the parameters of ``torch.nn.GRU``.

    ``gates`` ``[L, 4H, B]`` has four blocks: the candidate's recurrent term W_hn h + b_hn, the reset gate r, the update
    gate z, and the candidate n::

        n = tanh(W_in x + b_in + r * (W_hn h + b_hn))
        h' = n + z * (h - n)
    """

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, hidden: Tensor, w_in: Tensor, w: Tensor, b_in: Tensor, b: Tensor) -> Tensor:
        """Return the state after each step ``[B, L, H]`` of inputs ``[B, L, D]``, starting from ``[B, H]``."""
        size, length = hidden.shape[1], inputs.shape[1]
        entries = inputs.permute(1, 2, 0)
        # The candidate's recurrent term is a separate block, because the reset gate scales it but not the input term.
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
        # Contiguous, because otherwise every later matrix product would copy it.
        return states[1:].permute(2, 0, 1).contiguous()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients with respect to all arguments."""
        entries, states, gates, w_in, last_weight = ctx.saved_tensors
        size, steps, back = states.shape[1], grad_outputs.permute(1, 2, 0), last_weight.t().contiguous()
        total = torch.zeros_like(states[0])
        grad_w_in, grad_w, grad_bias = torch.zeros_like(w_in), torch.zeros_like(last_weight), gates.new_zeros(4 * size)
        grad_entries = torch.empty_like(entries) if ctx.needs_input_grad[0] else None
        chunk = max(1, CHUNK // gates[0].numel())
        workspace = gates.new_empty(min(chunk, len(gates)), *gates.shape[1:])
        with _loop_threads(size, len(grad_outputs)):
            for last in range(len(gates), 0, -chunk):
                part = slice(max(0, last - chunk), last)
                grad_gates = _gru_derivatives(gates[part], states[part], workspace[: part.stop - part.start])
                blocks, sums = (
                    grad_gates.view(len(grad_gates), 4, size, *grad_gates.shape[2:]).unbind(0),
                    grad_gates[:, : 3 * size].unbind(0),
                )
                keeps, own = gates[part, 2 * size : 3 * size].unbind(0), steps[part].contiguous().unbind(0)
                for step in reversed(range(len(own))):
                    total += own[step]
                    blocks[step].mul_(total)
                    total.mul_(keeps[step]).addmm_(back, sums[step])
                grad_projected = grad_gates[:, size:]
                grad_w.addbmm_(grad_gates[:, : 3 * size], states[part].transpose(1, 2))
                grad_w_in.addbmm_(grad_projected, entries[part].transpose(1, 2))
                grad_bias += grad_gates.sum((0, 2))
                if grad_entries is not None:
                    torch.matmul(w_in.t(), grad_projected, out=grad_entries[part])
        return (
            None if grad_entries is None else grad_entries.permute(2, 0, 1),
            total.t(),
            grad_w_in,
            grad_w.roll(-size, 0),
            grad_bias[size:],
            grad_bias[: 3 * size].roll(-size),
        )


def _gru_derivatives(gates: Tensor, states: Tensor, workspace: Tensor) -> Tensor:
    """Return the derivatives of the state after each step with respect to the gates before activation.

    Args:
        gates: ``[L, 4H, B]``, see ``GruSequence``.
        states: state before each step ``[L, H, B]``.
        workspace: where the result ``[L, 4H, B]`` is written.
    """
    recurrent, reset, update, candidate = gates.chunk(4, 1)
    d_recurrent, d_reset, d_update, d_candidate = workspace.chunk(4, 1)
    rest = 1 - update
    torch.addcmul(rest, rest * candidate, candidate, value=-1, out=d_candidate)
    torch.mul(d_candidate, reset, out=d_recurrent)
    torch.mul(d_recurrent * (1 - reset), recurrent, out=d_reset)
    torch.mul(update * rest, states - candidate, out=d_update)
    return workspace


def read_gru(inputs: Tensor, hidden: Tensor, layer: nn.GRU) -> Tensor:
    """Return the state after each step ``[B, L, H]`` of inputs ``[B, L, D]``, starting from ``[B, H]``."""
    found: Tensor = GruSequence.apply(inputs, hidden, *layer.parameters())  # type: ignore[no-untyped-call]
    return found


class LstmSequence(torch.autograd.Function):
    """An LSTM with the parameters of ``torch.nn.LSTM``.

    ``gates`` ``[L, 4H, B]`` has four blocks: input gate i, forget gate f, candidate g, output gate o::

        c' = f * c + i * g
        h' = o * tanh(c')
    """

    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, hidden: Tensor, cell: Tensor, w_in: Tensor, w: Tensor, b_in: Tensor, b: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return states and cells after each step ``[B, L, H]`` of inputs ``[B, L, D]``, starting from ``[B, H]``."""
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
    def backward(ctx: Any, grad_outputs: Tensor, grad_cells: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients with respect to all arguments."""
        entries, states, cells, squashed, gates, w_in, w = ctx.saved_tensors
        size, length = states.shape[1], len(gates)
        write, forget, candidate, output = gates.chunk(4, 1)
        # Before activation the gradients of i, f, g are factors * dc, that of o is d_output * dh; dc gets d_cell * dh.
        factors = torch.cat(
            [
                candidate * write * (1 - write),
                cells[:-1] * forget * (1 - forget),
                write * (1 - candidate * candidate),
            ],
            1,
        ).view(length, 3, size, -1)
        d_output = squashed * output * (1 - output)
        d_cell = output * (1 - squashed * squashed)
        totals, cell_totals = (each.permute(1, 2, 0).contiguous() for each in (grad_outputs, grad_cells))
        first, first_cell = torch.zeros_like(totals[0]), torch.zeros_like(totals[0])
        units, kept = (first, *totals.unbind(0)), (first_cell, *cell_totals.unbind(0))
        grad_gates, back = torch.empty_like(gates), w.t().contiguous()
        sums, output_sums = grad_gates.unbind(0), grad_gates[:, 3 * size :].unbind(0)
        others, keeps = grad_gates.view(length, 4, size, -1)[:, :3].unbind(0), forget.unbind(0)
        scales, output_scales, crossings = (each.unbind(0) for each in (factors, d_output, d_cell))
        with _loop_threads(size, len(grad_outputs)):
            for step in reversed(range(length)):
                kept[step + 1].addcmul_(units[step + 1], crossings[step])
                torch.mul(scales[step], kept[step + 1], out=others[step])
                torch.mul(output_scales[step], units[step + 1], out=output_sums[step])
                kept[step].addcmul_(kept[step + 1], keeps[step])
                units[step].addmm_(back, sums[step])
        bias = grad_gates.sum((0, 2))
        return (
            torch.matmul(w_in.t(), grad_gates).permute(2, 0, 1) if ctx.needs_input_grad[0] else None,
            first.t(),
            first_cell.t(),
            _weight_gradient(grad_gates, entries),
            _weight_gradient(grad_gates, states[:-1]),
            bias,
            bias,
        )


def read_lstm(inputs: Tensor, hidden: Tensor, cell: Tensor, layer: nn.LSTM) -> tuple[Tensor, Tensor]:
    """Return states and cells after each step ``[B, L, H]`` of inputs ``[B, L, D]``, starting from ``[B, H]``."""
    units, cells = LstmSequence.apply(inputs, hidden, cell, *layer.parameters())  # type: ignore[no-untyped-call]
    return units, cells


def _loop_threads(size: int, trials: int) -> AbstractContextManager[None]:
    """Return the context for a loop whose steps multiply ``[G, H]`` by ``[H, B]``.

    If a step takes microseconds, a second thread saves next to nothing, and waiting for it costs milliseconds whenever
    another process is using its core.
    """
    return single_torch_thread() if size * size * trials < SMALL else nullcontext()


def _products(weight: Tensor, entries: Tensor, bias: Tensor) -> Tensor:
    """Return ``weight @ entries + bias`` for all steps: ``[G, D]``, ``[L, D, B]``, ``[G]`` to ``[L, G, B]``."""
    return torch.baddbmm(bias[:, None], weight.expand(len(entries), -1, -1), entries)


def _weight_gradient(grad_gates: Tensor, entries: Tensor) -> Tensor:
    """Return the gradient of a weight ``[G, D]``: ``[L, G, B]`` times ``[L, D, B]``, summed over steps and trials."""
    total = grad_gates.new_zeros(grad_gates.shape[1], entries.shape[1])
    return total.addbmm_(grad_gates, entries.transpose(1, 2))
