"""What metric-based methods train an embedding with: examples of one class lie close together, others far apart.

N classes have K support examples ``s`` and Q queries ``q`` each, embedded in Z numbers: tensors ``[..., N, K, Z]`` and
``[..., N, Q, Z]``. A class may be a character, or a task whose examples are sets of its points or transitions.
"""

import math
from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize, one_hot


class Metric(nn.Module, ABC):
    """A way to compare queries with classes.

    Args:
        size: number Z of an embedding.

    Attributes:
        by_angle: whether only the directions of embeddings are compared.
    """

    by_angle: ClassVar[bool] = False

    def __init__(self, size: int) -> None:
        super().__init__()

    @abstractmethod
    def scores(self, support: Tensor, query: Tensor) -> Tensor:
        """Return how well each query fits each class ``[..., N * Q, N]``; the best-fitting class is predicted."""

    def loss(self, support: Tensor, query: Tensor) -> Tensor:
        """Return the mean over queries of the cross-entropy of their own class, the scores being logits."""
        scores = self.scores(support, query)
        own = classes(support, query).expand(scores.shape[:-1])
        return cross_entropy(scores.flatten(0, -2), own.flatten())

    def compared(self, embeddings: Tensor) -> Tensor:
        """Return what is compared of embeddings ``[..., Z]``: their directions as unit vectors, or all of them."""
        return normalize(embeddings, dim=-1) if self.by_angle else embeddings


def classes(support: Tensor, query: Tensor) -> Tensor:
    """Return the class of each query ``[N * Q]``."""
    return torch.arange(support.shape[-3], device=support.device).repeat_interleave(query.shape[-2])


def same_class(support: Tensor, query: Tensor) -> Tensor:
    """Return 1 where a query and a support example are of one class, else 0: ``[N * Q, N, 1]``."""
    return one_hot(classes(support, query), support.shape[-3]).to(query.dtype).unsqueeze(-1)


def square_distances(queries: Tensor, others: Tensor) -> Tensor:
    """Return squared Euclidean distances ``[..., P, R]`` of ``[..., P, Z]`` from ``[..., R, Z]``."""
    return (queries.unsqueeze(-2) - others.unsqueeze(-3)).square().sum(-1)


def by_class(values: Tensor, support: Tensor) -> Tensor:
    """Return values of support examples ``[..., P, N * K]`` as ``[..., P, N, K]``."""
    return values.view(*values.shape[:-1], *support.shape[-3:-1])


class Pairs(Metric):
    """Distances of pairs of a query and a support example: one class pulls them together, two push them apart.

    y d² + (1 - y) f(d²) for each pair; y is 1 if they are of one class.
    """

    def scores(self, support: Tensor, query: Tensor) -> Tensor:
        """Return minus the mean squared distance from a class's examples."""
        return -by_class(self._squares(support, query), support).mean(-1)

    def loss(self, support: Tensor, query: Tensor) -> Tensor:
        """Return the mean over pairs of one class, plus that over pairs of two."""
        squares, same = by_class(self._squares(support, query), support), same_class(support, query)
        # One of the N classes is a query's own; with a single one there are no other pairs.
        number = squares.shape[-2]
        apart = (1 - same) * self.repulsion(squares)
        return number * (same * squares).mean() + number / max(1, number - 1) * apart.mean()

    @abstractmethod
    def repulsion(self, squares: Tensor) -> Tensor:
        """Return the loss f of pairs of two classes, given their squared distances."""

    def _squares(self, support: Tensor, query: Tensor) -> Tensor:
        return square_distances(query.flatten(-3, -2), support.flatten(-3, -2))


class Siamese(Pairs):
    """Pairs of two classes should be at least a margin m apart (Hadsell, Chopra, LeCun 2006): max(0, m - d)²."""

    margin = 1.0

    def repulsion(self, squares: Tensor) -> Tensor:
        """Return the squared shortfalls from the margin."""
        # The root's slope is infinite at 0.
        return (self.margin - squares.clamp(min=1e-12).sqrt()).clamp(min=0).square()


class Focal(Pairs):
    """Pairs of two classes repel each other at any distance (Li, Yang, Luo 2021, equation 13): 1 / (d² + ε)."""

    softness = 0.1

    def repulsion(self, squares: Tensor) -> Tensor:
        """Return an inverse square."""
        return 1 / (squares + self.softness)


class Prototypical(Metric):
    """A class is the mean of its examples (Snell, Swersky, Zemel 2017): p(n) ∝ exp(-‖q - c_n‖²)."""

    def scores(self, support: Tensor, query: Tensor) -> Tensor:
        """Return minus the squared distance from a class's prototype."""
        return -square_distances(query.flatten(-3, -2), support.mean(-2))


class ByAngle(Metric):
    """Cosines of queries and support examples, sharpened: they are divided by a temperature."""

    by_angle = True
    temperature = 0.1

    def logits(self, support: Tensor, query: Tensor) -> Tensor:
        """Return cosines over temperature ``[..., N * Q, N, K]``."""
        queries, examples = (self.compared(each).flatten(-3, -2) for each in (query, support))
        return by_class(queries @ examples.mT / self.temperature, support)


class Matching(ByAngle):
    """Attention over the support set (Vinyals et al. 2016): p(n) = Σ a(q, s) over n's examples.

    The attention a(q, ·) is a softmax of cosines.
    """

    def scores(self, support: Tensor, query: Tensor) -> Tensor:
        """Return the logarithm of the attention that a class's examples get."""
        logits = self.logits(support, query)
        return logits.logsumexp(-1) - logits.flatten(-2).logsumexp(-1, keepdim=True)


class Relation(Metric):
    """A learned score of query and prototype (Sung et al. 2018), fitted to 1 for the query's class, to 0 for others.

    It is a network of both and of their absolute difference, from which comparing is easier to learn (Koch, Zemel,
    Salakhutdinov 2015, section 3.1).
    """

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.network = nn.Sequential(nn.Linear(3 * size, 64), nn.ReLU(), nn.Linear(64, 1), nn.Sigmoid())

    def scores(self, support: Tensor, query: Tensor) -> Tensor:
        """Return the learned score."""
        queries, prototypes = query.flatten(-3, -2).unsqueeze(-2), support.mean(-2).unsqueeze(-3)
        shape = (*queries.shape[:-2], support.shape[-3], -1)
        apart = (queries - prototypes).abs()
        scores: Tensor = self.network(torch.cat([queries.expand(shape), prototypes.expand(shape), apart], -1))
        return scores.squeeze(-1)

    def loss(self, support: Tensor, query: Tensor) -> Tensor:
        """Return the mean squared error of the scores."""
        return (self.scores(support, query) - same_class(support, query).squeeze(-1)).square().mean()


class Contrastive(ByAngle):
    """InfoNCE (van den Oord, Li, Vinyals 2018): pick out the query's partner, which is of its class, from all others.

    For each query and each partner s⁺ of its class: -log of exp(cos(q, s⁺) / τ) over the sum of exp(cos(q, s) / τ),
    of s⁺ and of all examples of other classes.
    """

    def scores(self, support: Tensor, query: Tensor) -> Tensor:
        """Return the mean cosine with a class's examples."""
        return self.temperature * self.logits(support, query).mean(-1)

    def loss(self, support: Tensor, query: Tensor) -> Tensor:
        """Return the mean over queries and partners."""
        logits, same = self.logits(support, query), same_class(support, query)
        others = logits.masked_fill(same.bool(), -math.inf).flatten(-2).logsumexp(-1)[..., None, None]
        return logits.shape[-2] * (same * (torch.logaddexp(logits, others) - logits)).mean()


METRICS: dict[str, type[Metric]] = {
    "siamese": Siamese,
    "prototypical": Prototypical,
    "matching": Matching,
    "relation": Relation,
    "contrastive": Contrastive,
    "focal": Focal,
}
