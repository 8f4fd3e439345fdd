"""MAML and Reptile in supervised form: an initialisation from which a few gradient steps on the support set suffice."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from tensordict import TensorDict
from torch import Tensor

from metarl.experiments.few_shot.fitting import fit
from metarl.experiments.few_shot.problems import Problem, Tasks
from metarl.networks.mlp import init_mlp, mlp
from metarl.numerics.params import gradient, leaf, names, per_task

Predict = Callable[[Tasks], Tensor]
# Inputs [B, S, D] and targets [B, S, O] that one inner step descends.
Examples = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class GradientSettings:
    """How a method trains and adapts.

    Attributes:
        inner_lr, inner_steps: of gradient descent on the support set of a new task.
        outer_lr: step size of Adam (MAML), or share of the way to the adapted parameters at first (Reptile).
        iterations: of training, with 25 tasks each.
        units: of each of the two hidden layers.
        activation: after each of them.
        minibatch: examples per inner step while Reptile trains, which sees each of them once.
    """

    inner_lr: float
    inner_steps: int
    outer_lr: float
    iterations: int
    units: int = 40
    activation: Callable[[Tensor], Tensor] = torch.relu
    minibatch: int = 10


class Network:
    """The network for which each task has its own parameters."""

    def __init__(self, problem: Problem, settings: GradientSettings, stream: torch.Generator) -> None:
        self._problem, self._settings = problem, settings
        self.params = leaf(init_mlp([problem.inputs, settings.units, settings.units, problem.outputs], stream))

    def adapted(self, batches: Iterable[Examples], graph: bool = False) -> TensorDict:
        """Descend each task's loss on its examples, from the initialisation θ: θ_b ← θ_b - α ∇ L_b(θ_b).

        Args:
            batches: what each step descends, of B tasks.
            graph: whether to keep the result a differentiable function of θ.
        """
        own = None
        for inputs, targets in batches:
            own = per_task(self.params, len(inputs)) if own is None else own
            loss = self._problem.loss(self.outputs(own, inputs), targets).sum()
            gradients = gradient(loss, own, create_graph=graph)
            moved = {name: own[name] - self._settings.inner_lr * gradients[name] for name in names(own)}
            own = TensorDict(moved, own.batch_size)
        assert own is not None, "there is at least one step"
        return own

    def outputs(self, params: TensorDict, inputs: Tensor) -> Tensor:
        """Return each task's outputs ``[B, Q, O]`` for inputs ``[B, Q, D]``."""
        return mlp(params, inputs, self._settings.activation)

    def answers(self, tasks: Tasks, graph: bool = False) -> Tensor:
        """Adapt to support sets, and return the outputs ``[B, Q, O]`` for the queries."""
        steps = self._settings.inner_steps * [(tasks.support, tasks.answers)]
        return self.outputs(self.adapted(steps, graph), tasks.query)


def maml(problem: Problem, settings: GradientSettings, stream: torch.Generator) -> Predict:
    """Train by MAML: descend the adapted parameters' loss on queries, through the adaptation (Finn et al. 2017)."""
    network = Network(problem, settings, stream)

    def loss() -> Tensor:
        tasks = problem.draw(25, stream)
        return problem.loss(network.answers(tasks, graph=True), tasks.truth).mean()

    fit([network.params[name] for name in names(network.params)], settings.outer_lr, settings.iterations, loss)
    return network.answers


def reptile(problem: Problem, settings: GradientSettings, stream: torch.Generator) -> Predict:
    """Train by Reptile: move towards the mean of the tasks' parameters, each adapted to all examples of its task.

    There is no derivative through the adaptation, and no query (Nichol, Achiam, Schulman 2018). Every inner step is on
    different examples: it is the agreement between minibatches' gradients that Reptile maximises (section 5.1).
    """
    network = Network(problem, settings, stream)
    for iteration in range(settings.iterations):
        own = network.adapted(minibatches(problem.draw(25, stream), settings.minibatch, stream))
        share = settings.outer_lr * (1 - iteration / settings.iterations)
        with torch.no_grad():
            for name in names(own):
                network.params[name].lerp_(own[name].mean(0), share)
    return network.answers


def minibatches(tasks: Tasks, size: int, stream: torch.Generator) -> Iterator[Examples]:
    """Yield all examples of tasks, ``size`` at a time, in a random order of each task's own."""
    inputs, targets = torch.cat([tasks.support, tasks.query], 1), torch.cat([tasks.answers, tasks.truth], 1)
    rows = torch.arange(len(inputs)).unsqueeze(1)
    orders = torch.rand(inputs.shape[:2], generator=stream).argsort(1)
    for chosen in torch.split(orders, size, 1):
        yield inputs[rows, chosen], targets[rows, chosen]
