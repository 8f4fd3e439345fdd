"""Some of a process's trials as its share of a minibatch, which may hold none of them."""

from dataclasses import replace

import torch
from torch import Tensor

from metarl.rollouts.trials import Trials


def selected(trials: Trials, rows: Tensor) -> Trials:
    """Return the trials with these numbers ``[B]``; if there are none, one trial whose steps do not count.

    So a process takes part in a batch of which it holds no trial: its share of every mean and gradient is then zero.
    """
    chosen = trials[own_or_first(rows)]
    return chosen if len(rows) else replace(chosen, valid=torch.zeros_like(chosen.valid))


def own_or_first(rows: Tensor) -> Tensor:
    """Return the numbers of trials ``[B]``, or that of the first trial if there are none."""
    return rows if len(rows) else rows.new_zeros(1)


def lengths_read(trials: Trials) -> Tensor:
    """Return the number of steps of each trial ``[B]``, at least one: a memory reads one even where none counts."""
    return trials.lengths.clamp(min=1)
