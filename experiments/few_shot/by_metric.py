"""Metric-based methods: nothing is fitted to a new task, its examples are embedded and compared.

Characters are classified by comparing their embeddings. A regression task is embedded whole: an encoder of five points
is trained so that sets of points of one sinusoid lie close together and of others far apart, without seeing a
regression's error; a second network then predicts y from x and the embedding. So the regression's error does not reach
the encoder.
"""

import torch
from torch import Tensor, nn

from metarl.agents.in_context.task_metrics import Metric
from metarl.experiments.few_shot.by_gradient import Predict
from metarl.experiments.few_shot.fitting import fit
from metarl.experiments.few_shot.problems import Characters, Sinusoids, Tasks

SIZE, STEP_SIZE = 32, 2e-3


def layers(inputs: int, outputs: int, hidden: int) -> nn.Sequential:
    """Return a perceptron of two hidden layers."""
    return nn.Sequential(
        nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, outputs)
    )


def classifier(problem: Characters, metric: Metric, iterations: int, stream: torch.Generator) -> Predict:
    """Train an embedding of pictures; return the scores of the classes for each query."""
    encoder = layers(problem.inputs, SIZE, 64)

    def embedded(pictures: Tensor) -> Tensor:
        """Return embeddings ``[B, N, K, Z]`` of images ``[B, N * K, D]``, which are in the order of their classes."""
        found: Tensor = encoder(pictures)
        return found.view(len(found), problem.ways, -1, SIZE)

    def loss() -> Tensor:
        tasks = problem.draw(10, stream)
        return metric.loss(embedded(tasks.support), embedded(tasks.query))

    fit([*encoder.parameters(), *metric.parameters()], STEP_SIZE, iterations, loss)

    @torch.no_grad()
    def predict(tasks: Tasks) -> Tensor:
        return metric.scores(embedded(tasks.support), embedded(tasks.query))

    return predict


class SetEncoder(nn.Module):
    """Embeds a set of points (x, y), in any order: a function of the mean over points of a function of each."""

    def __init__(self) -> None:
        super().__init__()
        self.each, self.all = layers(2, 64, 64), layers(64, SIZE, 64)

    def forward(self, points: Tensor) -> Tensor:
        """Return embeddings ``[..., Z]`` of points ``[..., P, 2]``."""
        found: Tensor = self.all(self.each(points).mean(-2))
        return found


def regressor(problem: Sinusoids, metric: Metric, iterations: int, stream: torch.Generator) -> Predict:
    """Train an embedding of sets of points by comparison, and a network that predicts by it."""
    encoder, head = SetEncoder(), layers(1 + SIZE, 1, 64)

    def predict_from(points: Tensor, x: Tensor) -> Tensor:
        with torch.no_grad():
            embedding = encoder(points)
        found: Tensor = head(torch.cat([x, embedding.unsqueeze(1).expand(-1, x.shape[1], -1)], -1))
        return found

    def loss() -> Tensor:
        # Two sets of each task are the support. The third is the query, whose values are predicted from the first.
        sets = problem.sets(50, 3, problem.shots, stream)
        embedded = encoder(sets)
        x, y = sets[:, 2].chunk(2, -1)
        error = problem.loss(predict_from(sets[:, 0], x), y).mean()
        return metric.loss(embedded[:, :2], embedded[:, 2:]) + error

    fit([*encoder.parameters(), *metric.parameters(), *head.parameters()], STEP_SIZE, iterations, loss)

    @torch.no_grad()
    def predict(tasks: Tasks) -> Tensor:
        return predict_from(torch.cat([tasks.support, tasks.answers], -1), tasks.query)

    return predict
