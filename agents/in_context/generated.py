"""Networks whose weights another network generates (Ha et al. 2017; Beck et al. 2022).

The generating network, the hypernetwork, is a linear layer from a context, such as what is remembered of a trial, to
all weights and biases of a small network. Its own weights start near zero and its biases as the weights of an ordinary
network, so initially every context has the same well-scaled network (Bias-HyperInit: Beck et al. 2022, section 4.2).
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from metarl.networks.activations import Elementwise


class GeneratedNetwork(nn.Module):
    """An MLP of the first part of its inputs; the other part, the context, generates its weights.

    Args:
        sizes: units of every layer, including inputs and outputs.
        context: size of the context.
        activation: between layers.
        gain: of the last layer's initial weights.
    """

    def __init__(
        self, sizes: Sequence[int], context: int, activation: Elementwise = torch.tanh, gain: float = 0.01
    ) -> None:
        super().__init__()
        self._activation, self._inputs = activation, sizes[0]
        self._shapes = list(pairwise(sizes))
        self.hypernetwork = nn.Linear(context, sum(inputs * outputs + outputs for inputs, outputs in self._shapes))
        nn.init.orthogonal_(self.hypernetwork.weight, 0.01)
        with torch.no_grad():
            for index, (weight, bias) in enumerate(self._layers(self.hypernetwork.bias)):
                last = index == len(self._shapes) - 1
                weight.copy_(nn.init.xavier_uniform_(torch.empty_like(weight), gain if last else 1.0))
                bias.zero_()

    def forward(self, read: Tensor) -> Tensor:
        """Return outputs ``[..., outputs]`` for inputs and context ``[..., inputs + context]``, in this order."""
        hidden, context = torch.tensor_split(read.flatten(0, -2), [self._inputs], -1)
        for index, (weight, bias) in enumerate(self._layers(self.hypernetwork(context))):
            hidden = torch.einsum("si,sio->so", hidden if index == 0 else self._activation(hidden), weight) + bias
        return hidden.view(*read.shape[:-1], hidden.shape[-1])

    def _layers(self, numbers: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Split numbers ``[..., P]`` into weights ``[..., inputs, outputs]`` and biases ``[..., outputs]``."""
        sizes = [size for inputs, outputs in self._shapes for size in (inputs * outputs, outputs)]
        pieces = torch.split(numbers, sizes, -1)
        weights = [
            piece.view(*piece.shape[:-1], *shape) for piece, shape in zip(pieces[::2], self._shapes, strict=True)
        ]
        return list(zip(weights, pieces[1::2], strict=True))
