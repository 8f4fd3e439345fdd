"""Four ways to multiply a vector by the curvature of MAML-TRPO, on the same rollouts, in the same process.

    python benchmarks/curvature.py

The Hessian of the mean KL between adapted policies, at the old parameters, times a vector; HalfCheetahVel, 20 tasks x
20 episodes x 100 steps of support and of query, 64-64 tanh. Prints the median time of a product, that of preparing it,
and how far each way's result is from that of the first.
"""

import statistics
import time
from collections.abc import Callable

import torch
from tensordict import TensorDict
from torch import Tensor

from metarl.agents.gradient.adaptation import Episodes, surrogate
from metarl.agents.gradient.maml_trpo import MamlTrpo
from metarl.devices.runtime import keep_freed_memory
from metarl.networks.activations import ACTIVATIONS
from metarl.numerics.params import flatten, leaf, names, tensors, unflatten
from metarl.rollouts.returns import per_task_mean
from metarl.run.config import RunConfig, TrainConfig
from metarl.sampling.sampler import Sampler

TASKS, EPISODES, PRODUCTS = 20, 20, 10
Product = Callable[[Tensor], Tensor]
Outputs = Callable[[Tensor], tuple[Tensor, ...]]


def functional(learner: MamlTrpo, support: Episodes, query: Episodes) -> tuple[Outputs, Tensor]:
    """Return the adapted policies' means and log standard deviations as a function of the parameters, and these."""
    like, inner_lr = learner.params, learner.config.inner_lr

    def objective(stacked: dict[str, Tensor]) -> Tensor:
        params = TensorDict(stacked, [TASKS])
        return surrogate(learner.policy.distribution(params, support.rollout.observations), support).sum()

    def outputs(vector: Tensor) -> tuple[Tensor, ...]:
        params = unflatten(vector, like)
        stacked = {name: params[name].expand(TASKS, *params[name].shape) for name in names(params)}
        gradients = torch.func.grad(objective)(stacked)
        adapted = TensorDict({name: stacked[name] + inner_lr * gradients[name] for name in stacked}, [TASKS])
        return learner.policy.distribution(adapted, query.rollout.observations).tensors()

    return outputs, flatten(like)


def mean_kl(learner: MamlTrpo, query: Episodes, fixed: tuple[Tensor, ...], moving: tuple[Tensor, ...]) -> Tensor:
    """Return the mean KL from the policies with parameters ``fixed`` to those with ``moving``."""
    kind = type(query.rollout.known_distribution())
    return per_task_mean(kind(*fixed).kl(kind(*moving)), query.rollout.valid).mean()


def forward_over_reverse(learner: MamlTrpo, support: Episodes, query: Episodes) -> Product:
    """The derivative, in the vector's direction, of the gradient of the KL."""
    outputs, point = functional(learner, support, query)
    fixed = tuple(tensor.detach() for tensor in outputs(point))
    gradient = torch.func.grad(lambda vector: mean_kl(learner, query, fixed, outputs(vector)))

    def product(vector: Tensor) -> Tensor:
        curved: Tensor = torch.func.jvp(gradient, (point,), (vector,))[1]
        return curved

    return product


def jvp_then_vjp(learner: MamlTrpo, support: Episodes, query: Episodes) -> Product:
    """J'MJ with a fresh forward-mode pass in each product and one recorded reverse pass."""
    outputs, point = functional(learner, support, query)
    values, pullback, *_ = torch.func.vjp(outputs, point)
    fixed = tuple(value.detach() for value in values)
    gradient = torch.func.grad(lambda moving: mean_kl(learner, query, fixed, moving))

    def product(vector: Tensor) -> Tensor:
        pushed = torch.func.jvp(outputs, (point,), (vector,))[1]
        pulled: Tensor = pullback(torch.func.jvp(gradient, (fixed,), (pushed,))[1])[0]
        return pulled

    return product


def inner_hessians(learner: MamlTrpo, support: Episodes, query: Episodes) -> Product:
    """(I + lr H) F (I + lr H), with each task's inner Hessian H and Fisher matrix F from graphs recorded once."""
    inner_lr = learner.config.inner_lr
    stacked = leaf(learner.params.expand(TASKS))
    policy = learner.policy
    objective = surrogate(policy.distribution(stacked, support.rollout.observations), support).sum()
    gradients = torch.autograd.grad(objective, tensors(stacked), create_graph=True)
    moved = [value + inner_lr * each for value, each in zip(tensors(stacked), gradients, strict=True)]
    adapted = TensorDict(
        {name: value.detach().requires_grad_() for name, value in zip(names(stacked), moved, strict=True)}, [TASKS]
    )
    moving = policy.distribution(adapted, query.rollout.observations)
    kl = mean_kl(learner, query, tuple(tensor.detach() for tensor in moving.tensors()), moving.tensors())
    kl_slopes = torch.autograd.grad(kl, tensors(adapted), create_graph=True)

    def through_adaptation(vectors: list[Tensor]) -> list[Tensor]:
        bent = torch.autograd.grad(gradients, tensors(stacked), vectors, retain_graph=True)
        return [vector + inner_lr * change for vector, change in zip(vectors, bent, strict=True)]

    def product(vector: Tensor) -> Tensor:
        pieces = [piece.expand(TASKS, *piece.shape) for piece in tensors(unflatten(vector, learner.params))]
        pushed = through_adaptation(pieces)
        weighed = list(torch.autograd.grad(kl_slopes, tensors(adapted), pushed, retain_graph=True))
        return torch.cat([piece.sum(0).reshape(-1) for piece in through_adaptation(weighed)])

    return product


WAYS: dict[str, Callable[[MamlTrpo, Episodes, Episodes], Product]] = {
    "one recorded graph (metarl)": lambda learner, support, query: learner.curvature([support], query),
    "inner Hessians and Fisher": inner_hessians,
    "jvp, then vjp": jvp_then_vjp,
    "forward over reverse": forward_over_reverse,
}


def main() -> None:
    """Measure each way and print the results."""
    keep_freed_memory()
    ACTIVATIONS["tanh"] = torch.tanh  # torch.func's transforms do not take metarl's
    config = TrainConfig("maml-trpo", "half-cheetah-vel", RunConfig(preset="0-2-h100"))
    learner, sampler = config.make_learner(), Sampler(config.make_family())
    assert isinstance(learner, MamlTrpo)
    tasks, state = config.split().train_tasks(TASKS, 0), learner.begin(TASKS)
    first = sampler.collect(learner, state, tasks, EPISODES, 1)
    second = sampler.collect(learner, learner.adapt(state, first), tasks, EPISODES, 2)
    support, query = (Episodes.of(rollout, learner.policy, 0.99, 1.0) for rollout in (first, second))
    vector = torch.randn(flatten(learner.params).shape, generator=torch.Generator().manual_seed(0))
    reference = None
    for name, way in WAYS.items():
        began = time.perf_counter()
        product = way(learner, support, query)
        prepared = time.perf_counter() - began
        times = []
        for _ in range(PRODUCTS + 1):
            began = time.perf_counter()
            result = product(vector)
            times.append(time.perf_counter() - began)
        reference = result if reference is None else reference
        error = ((result - reference).norm() / reference.norm()).item()
        median = statistics.median(times[1:]) * 1e3
        print(f"{name:<28}{median:7.1f} ms a product, {prepared * 1e3:7.1f} ms to prepare, differs by {error:.0e}")


if __name__ == "__main__":
    main()
