"""Two few-shot problems that need no download: sinusoids to regress, and made-up characters to classify."""

import functools
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from metarl.seeding import generator


@dataclass(frozen=True)
class Tasks:
    """B tasks, each with a few examples to learn from, the support set, and others to be tested on, the queries.

    Shapes:
        support: inputs ``[B, S, D]``, in the order of their classes where there are some.
        answers: targets of the support set ``[B, S, O]``, one-hot where they are classes.
        query: inputs ``[B, Q, D]``.
        truth: targets of the queries ``[B, Q, O]``.
    """

    support: Tensor
    answers: Tensor
    query: Tensor
    truth: Tensor


class Problem(ABC):
    """A distribution of tasks.

    Attributes:
        inputs, outputs: sizes D and O.
        unit: what ``score`` measures.
    """

    name: ClassVar[str]
    inputs: ClassVar[int]
    outputs: ClassVar[int]
    unit: ClassVar[str]

    @abstractmethod
    def draw(self, count: int, stream: torch.Generator, held_out: bool = False) -> Tasks:
        """Draw tasks ``[count]`` to train on, or of those that are held out."""

    @abstractmethod
    def loss(self, predictions: Tensor, truth: Tensor) -> Tensor:
        """Return the mean loss of each task ``[B]``; both are ``[B, Q, O]``."""

    @abstractmethod
    def score(self, predictions: Tensor, truth: Tensor) -> Tensor:
        """Return the reported score of each task ``[B]``."""


def uniform(low: float, high: float, *shape: int, stream: torch.Generator) -> Tensor:
    """Draw uniform numbers."""
    return low + (high - low) * torch.rand(*shape, generator=stream)


class Sinusoids(Problem):
    """y = A sin(x - φ), A in [0.1, 5], φ in [0, π], x in [-5, 5]; five points are known (Finn et al. 2017, 5.1)."""

    name = "sinusoids"
    inputs, outputs, unit = 1, 1, "squared error"
    shots, queries = 5, 20

    def draw(self, count: int, stream: torch.Generator, held_out: bool = False) -> Tasks:
        """Draw amplitudes, phases and points; no task is ever drawn twice."""
        points, values = self.sets(count, 1, self.shots + self.queries, stream).chunk(2, -1)
        parts = [self.shots, self.queries]
        support, query = torch.split(points[:, 0], parts, 1)
        answers, truth = torch.split(values[:, 0], parts, 1)
        return Tasks(support, answers, query, truth)

    def sets(self, count: int, sets: int, points: int, stream: torch.Generator) -> Tensor:
        """Draw some sets of points of each task ``[count, sets, points, 2]``, of (x, y) each."""
        amplitude, phase = (uniform(*ends, count, 1, 1, stream=stream) for ends in ((0.1, 5.0), (0.0, math.pi)))
        x = uniform(-5.0, 5.0, count, sets, points, stream=stream)
        return torch.stack([x, amplitude * (x - phase).sin()], -1)

    def loss(self, predictions: Tensor, truth: Tensor) -> Tensor:
        """Return mean squared errors."""
        return (predictions - truth).square().mean((1, 2))

    def score(self, predictions: Tensor, truth: Tensor) -> Tensor:
        """Return mean squared errors."""
        return self.loss(predictions, truth)


class Characters(Problem):
    """Five synthetic characters, one example of each: strokes through five points, written with a shaky hand.

    There is one alphabet of 400 characters for training and another for testing, with 12 images of each character.
    """

    name = "characters"
    side, ways, shots, queries = 12, 5, 1, 5
    inputs, outputs, unit = side * side, ways, "accuracy"

    def draw(self, count: int, stream: torch.Generator, held_out: bool = False) -> Tasks:
        """Draw characters, and images of them, without replacement."""
        pictures = alphabet(held_out)
        parts = [self.shots, self.queries]
        letters = torch.rand(count, len(pictures), generator=stream).topk(self.ways).indices.unsqueeze(-1)
        chosen = torch.rand(count, self.ways, pictures.shape[1], generator=stream).topk(sum(parts)).indices
        drawn = pictures[letters, chosen]
        classes = one_hot(torch.arange(self.ways)).float()[None, :, None].expand(*drawn.shape[:3], -1)
        (support, query), (answers, truth) = torch.split(drawn, parts, 2), torch.split(classes, parts, 2)
        return Tasks(*(part.flatten(1, 2) for part in (support, answers, query, truth)))

    def loss(self, predictions: Tensor, truth: Tensor) -> Tensor:
        """Return mean cross-entropies, in nats; predictions are logits."""
        return cross_entropy(predictions.transpose(1, 2), truth.transpose(1, 2), reduction="none").mean(1)

    def score(self, predictions: Tensor, truth: Tensor) -> Tensor:
        """Return the accuracy on the queries."""
        return (predictions.argmax(-1) == truth.argmax(-1)).float().mean(1)


@functools.cache
def alphabet(held_out: bool) -> Tensor:
    """Return images ``[400, 12, D]`` of one of the two alphabets."""
    stream = generator(0, "characters", held_out)
    return written(uniform(0.1, 0.9, 400, 1, 5, 2, stream=stream).expand(-1, 12, -1, -1), stream)


def written(strokes: Tensor, stream: torch.Generator) -> Tensor:
    """Return images ``[..., D]`` of strokes through points ``[..., 5, 2]``, slightly rotated, shifted and jittered."""
    angle = uniform(-0.3, 0.3, *strokes.shape[:-2], 1, stream=stream)
    x, y = (strokes - 0.5).unbind(-1)
    turned = torch.stack([x * angle.cos() - y * angle.sin(), x * angle.sin() + y * angle.cos()], -1)
    moved = turned + 0.5 + uniform(-0.08, 0.08, *strokes.shape[:-2], 1, 2, stream=stream)
    points = moved + 0.04 * torch.randn(strokes.shape, generator=stream)
    axis = (torch.arange(Characters.side) + 0.5) / Characters.side
    # The distance of each pixel from the nearest of the four segments.
    start, along = points[..., :-1, :].unsqueeze(-3), points.diff(dim=-2).unsqueeze(-3)
    away = torch.cartesian_prod(axis, axis).unsqueeze(-2) - start
    share = ((away * along).sum(-1) / along.square().sum(-1).clamp(min=1e-6)).clamp(0, 1)
    squares = (away - share.unsqueeze(-1) * along).square().sum(-1).amin(-1)
    return (-squares / (2 * 0.05**2)).exp()


PROBLEMS: dict[str, Problem] = {problem.name: problem for problem in (Sinusoids(), Characters())}
