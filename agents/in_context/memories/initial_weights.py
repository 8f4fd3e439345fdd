"""Initial weights of recurrent memories."""

import torch
from torch import nn


def make_orthogonal(network: nn.RNNBase) -> None:
    """Make recurrent weights orthogonal and input weights Xavier uniform, gate by gate, and biases zero.

    Orthogonal weights keep the length of what passes through many steps (Saxe et al. 2014, "Exact solutions to the
    nonlinear dynamics of learning in deep linear neural networks", section 4). The numbers come from torch's global
    stream.

    Args:
        network: a GRU or LSTM, changed in place.
    """
    for name, parameter in network.named_parameters():
        if name.startswith("bias"):
            nn.init.zeros_(parameter)
            continue
        initialize = nn.init.orthogonal_ if name.startswith("weight_hh") else nn.init.xavier_uniform_
        # The gates are independent maps, one below the other in one matrix.
        for gate in torch.split(parameter.detach(), network.hidden_size):
            initialize(gate)
