"""How close to the true direction a batch's policy gradient is, by how advantages are estimated (docs/adaptation.md).

    python benchmarks/gradient_quality.py
    python benchmarks/gradient_quality.py four-rooms random-mazes --batches 10

At a policy's initial parameters, the gradient of the mean discounted return over the tasks is estimated from many
episodes, by returns minus the mean return of the same step of the same task: this estimate is unbiased and depends on
no choice. The cosine between it and the gradients of single batches, as one step of a meta-learner sees them, is
printed (mean and standard deviation over batches) for each way to estimate advantages:

- what follows the horizon: ``bootstrap`` values the observation after the last step by the fitted baseline, which was
  fitted to returns that end there; ``finite`` adds nothing.
- the floor under a task's standard deviation when its advantages are normalised: none, or a share of the root mean
  square of all tasks' standard deviations.
"""

import argparse
import itertools
import json
from collections.abc import Callable
from pathlib import Path

import torch
from tensordict import TensorDict
from torch import Tensor

import metarl
from metarl.learning.baselines import LinearBaseline, linear_features
from metarl.learning.learner import Actor, OpenState
from metarl.learning.policies import Policy, make_policy
from metarl.numerics.distributions import Distribution
from metarl.numerics.params import flatten, gradient, leaf, per_task
from metarl.rollouts.returns import discounted_returns, generalized_advantages, per_task_mean
from metarl.rollouts.rollout import Rollout
from metarl.seeding import generator

RESULTS = Path(__file__).parent / "results" / "gradient_quality.json"
DISCOUNT = 0.99
FAMILIES = {
    "four-rooms": {},
    "random-mazes": {},
    "gridnavi": {},
    "navigation-2d": {},
    "half-cheetah-vel": {"preset": "0-2-h100"},
}
FLOORS = (0.0, 0.01, 0.1, 0.3, 1.0)
LAMBDAS = (1.0, 0.95)


# Episodes of a task in one collection for the reference, as a multiple of a batch's: more would only cost memory.
REFERENCE_BATCHES = 2


class PolicyActor(Actor):
    """A policy with each task's parameters, as the sampler's actor."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy

    def act(
        self,
        working: OpenState[TensorDict],
        observations: Tensor,
        generator: torch.Generator,
        deterministic: bool = False,
    ) -> tuple[Tensor, Distribution]:
        """Act by each task's parameters."""
        return self.policy.act(working.state, observations, generator, deterministic)


def advantages(policy: Policy, rollout: Rollout, bootstrap: bool, gae_lambda: float) -> Tensor:
    """Return advantages ``[N, E, T]`` before they are normalised."""
    steps = torch.arange(rollout.rewards.shape[-1])
    features = linear_features(policy.features(rollout.observations), steps)
    final = linear_features(policy.features(rollout.final_observations), rollout.valid.sum(-1))
    baseline = LinearBaseline.fit(features, discounted_returns(rollout.rewards, rollout.valid, DISCOUNT), rollout.valid)
    after = baseline(final) if bootstrap else torch.zeros_like(final[..., 0])
    return generalized_advantages(
        rollout.rewards, baseline(features), after, rollout.terminated, rollout.valid, DISCOUNT, gae_lambda
    )


def normalized(values: Tensor, valid: Tensor, floor: float) -> Tensor:
    """Return advantages of mean 0, divided by their task's standard deviation or by the floor under it."""
    count = valid.sum((1, 2), keepdim=True)
    centred = (values - (values * valid).sum((1, 2), keepdim=True) / count) * valid
    deviations = (centred.square().sum((1, 2), keepdim=True) / count).sqrt()
    return centred / (deviations.clamp(min=floor * float(deviations.square().mean().sqrt())) + 1e-8)


def policy_gradient(policy: Policy, params: TensorDict, rollout: Rollout, weights: Tensor) -> Tensor:
    """Return the gradient ``[P]`` of the mean over tasks and steps of log pi(a|s) times weights ``[N, E, T]``."""
    point = leaf(params)
    distribution = policy.distribution(per_task(point, rollout.num_tasks), rollout.observations)
    objective = per_task_mean(distribution.log_prob(rollout.actions) * weights, rollout.valid).mean()
    return flatten(gradient(objective, point)).detach()


def reference(policy: Policy, params: TensorDict, collect: Callable[[int], Rollout], rounds: int) -> Tensor:
    """Return the gradient ``[P]`` of the mean return, from ``rounds`` collections."""
    total = torch.zeros(())
    for seed in range(rounds):
        rollout = collect(10_000 + seed)
        returns = discounted_returns(rollout.rewards, rollout.valid, DISCOUNT)
        there = rollout.valid.sum(1, keepdim=True).clamp(min=1)
        total = total + policy_gradient(policy, params, rollout, returns - returns.sum(1, keepdim=True) / there)
    return total / rounds


def measure(name: str, batches: int, rounds: int, tasks: int, episodes: int) -> None:
    """Print a family's table, and write its numbers beside those of the other families."""
    family = metarl.make_family(name, **FAMILIES[name])
    policy = make_policy(family.observation_space, family.action_space)
    params = policy.init_params(generator(1, "gradient quality"))
    drawn = metarl.TaskSplit(family).train_tasks(tasks, "gradient quality")
    sampler, actor, stacked = metarl.Sampler(family), PolicyActor(policy), per_task(params, tasks)

    def collect(seed: int) -> Rollout:
        return sampler.collect(actor, stacked, drawn, REFERENCE_BATCHES * episodes, seed)

    truth = reference(policy, params, collect, rounds)
    other = reference(policy, params, lambda seed: collect(-seed), rounds)
    agreement = cosine(truth, other)
    print(f"\n{name}: {tasks} tasks x {episodes} episodes; two references agree to {agreement:.3f}")
    found: dict[tuple[str, float, float], list[float]] = {}
    for seed in range(batches):
        rollout = sampler.collect(actor, stacked, drawn, episodes, seed)
        for bootstrap, gae_lambda in itertools.product((True, False), LAMBDAS):
            raw = advantages(policy, rollout, bootstrap, gae_lambda)
            for floor in FLOORS:
                slope = policy_gradient(policy, params, rollout, normalized(raw, rollout.valid, floor))
                key = ("bootstrap" if bootstrap else "finite", gae_lambda, floor)
                found.setdefault(key, []).append(cosine(slope, truth))
    print(f"{'':<10}{'lambda':>7}" + "".join(f"{f'floor {floor:g}':>16}" for floor in FLOORS))
    for end, gae_lambda in itertools.product(("bootstrap", "finite"), LAMBDAS):
        cells = [torch.tensor(found[end, gae_lambda, floor]) for floor in FLOORS]
        numbers = "".join(f"{cell.mean():>9.3f} ± {cell.std():.3f}" for cell in cells)
        print(f"{end:<10}{gae_lambda:>7}{numbers}", flush=True)
    about = {"batches": batches, "rounds": rounds, "tasks": tasks, "episodes": episodes, "agreement": agreement}
    names = ("end", "lambda", "floor")
    cosines = [{**dict(zip(names, key, strict=True)), "cosines": each} for key, each in found.items()]
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    RESULTS.write_text(json.dumps({**known, name: {**about, "rows": cosines}}) + "\n")


def table(path: Path = RESULTS) -> str:
    """Return the mean cosines of lambda 1 as a Markdown table."""
    floors = " | ".join(f"floor {floor:g}" for floor in FLOORS[1:])
    lines = [f"| family | two references | after the horizon | no floor | {floors} |"]
    lines.append("|---|---|---|" + "---|" * len(FLOORS))
    for name, content in json.loads(path.read_text()).items():
        agreement = f"{content['agreement']:.3f}"
        for end, said in (("bootstrap", f"{name} | {agreement} | bootstrap"), ("finite", "| | nothing")):
            chosen = [row for row in content["rows"] if (row["end"], row["lambda"]) == (end, 1.0)]
            rows = {row["floor"]: row["cosines"] for row in chosen}
            means = " | ".join(f"{sum(rows[floor]) / len(rows[floor]):.3f}" for floor in FLOORS)
            lines.append(f"| {said} | {means} |")
    return "\n".join(lines)


def cosine(one: Tensor, other: Tensor) -> float:
    """Return the cosine of the angle between two vectors."""
    return float(torch.nn.functional.cosine_similarity(one, other, dim=0))


def main() -> None:
    """Measure the families that are named, or all of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("families", nargs="*", default=[])
    parser.add_argument("--batches", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--tasks", type=int, default=40)
    parser.add_argument("--episodes", type=int, default=20)
    chosen = parser.parse_args()
    for name in chosen.families or FAMILIES:
        measure(name, chosen.batches, chosen.rounds, chosen.tasks, chosen.episodes)


if __name__ == "__main__":
    main()
