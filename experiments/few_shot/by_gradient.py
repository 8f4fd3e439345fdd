"""MAML and Reptile in supervised form: an initialisation from which a few gradient steps on the support set suffice."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from tensordict import TensorDict
from torch import Tensor

from metarl.experiments.few_shot.fitting import fit
from metarl.experiments.few_shot.problems import Problem, Tasks
from metarl.networks import init_mlp, mlp
from metarl.params import gradient, leaf, names, per_task

Predict = Callable[[Tasks], Tensor]


@dataclass(frozen=True)
class GradientSettings:
    """How a method trains and adapts.

    Attributes:
        inner_lr, inner_steps: of gradient descent on a support set.
        outer_lr: step size of Adam (MAML), or share of the way to the adapted parameters (Reptile).
        iterations: of training, with 25 tasks each.
    """

    inner_lr: float
    inner_steps: int
    outer_lr: float
    iterations: int


def predictions(params: TensorDict, inputs: Tensor) -> Tensor:
    """Return outputs ``[B, Q, O]`` of each task's own network, rectified linear units between layers."""
    return mlp(params, inputs, torch.relu)


def adapted(problem: Problem, params: TensorDict, tasks: Tasks, settings: GradientSettings, graph: bool) -> TensorDict:
    """Descend the loss of each task's support set: θ_b ← θ_b - α ∇ L_b(θ_b), some times.

    Args:
        problem: whose loss.
        params: the initialisation θ, un-stacked.
        tasks: B of them.
        settings: α and the number of steps.
        graph: whether to keep the result a differentiable function of θ.
    """
    own = per_task(params, len(tasks.support))
    for _ in range(settings.inner_steps):
        loss = problem.loss(predictions(own, tasks.support), tasks.answers).sum()
        slopes = gradient(loss, own, create_graph=graph)
        own = TensorDict({name: own[name] - settings.inner_lr * slopes[name] for name in names(own)}, own.batch_size)
    return own


def maml(problem: Problem, settings: GradientSettings, stream: torch.Generator) -> Predict:
    """Train by MAML: descend the adapted parameters' loss on queries, through the adaptation (Finn et al. 2017)."""
    params = leaf(init_mlp([problem.inputs, 40, 40, problem.outputs], stream))

    def loss() -> Tensor:
        tasks = problem.draw(25, stream)
        own = adapted(problem, params, tasks, settings, graph=True)
        return problem.loss(predictions(own, tasks.query), tasks.truth).mean()

    fit([params[name] for name in names(params)], settings.outer_lr, settings.iterations, loss)
    return _predictor(problem, params, settings)


def reptile(problem: Problem, settings: GradientSettings, stream: torch.Generator) -> Predict:
    """Train by Reptile: move towards the mean of the tasks' adapted parameters, whose data are all examples of a task.

    There is no derivative through the adaptation, and no query (Nichol, Achiam, Schulman 2018).
    """
    params = leaf(init_mlp([problem.inputs, 40, 40, problem.outputs], stream))
    for iteration in range(settings.iterations):
        tasks = problem.draw(25, stream)
        both = torch.cat([tasks.support, tasks.query], 1), torch.cat([tasks.answers, tasks.truth], 1)
        own = adapted(problem, params, Tasks(*both, *both), settings, graph=False)
        share = settings.outer_lr * (1 - iteration / settings.iterations)
        with torch.no_grad():
            for name in names(params):
                params[name].lerp_(own[name].mean(0), share)
    return _predictor(problem, params, settings)


def _predictor(problem: Problem, params: TensorDict, settings: GradientSettings) -> Predict:
    def predict(tasks: Tasks) -> Tensor:
        return predictions(adapted(problem, params, tasks, settings, graph=False), tasks.query)

    return predict
