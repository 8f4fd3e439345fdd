"""What a learner that adapts by gradient steps carries over when its training task changes.

In a stream of tasks each is met once. With elastic weight consolidation, meta-parameters that mattered to what the
adapted policies did in earlier tasks are held in place. With replay, the last episodes of every earlier task are kept
with their action distributions; the outer objective has a penalty on how far the policies that are adapted to these
episodes move from them, as in the behavioural cloning of CLEAR (Rolnick et al. 2019).
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, cast

import torch
from tensordict import TensorDict
from torch import Tensor

from metarl.agents.gradient.adaptation import Adapted, Episodes
from metarl.devices.processes import Processes
from metarl.errors import InputError
from metarl.learning.anchor import SAMPLES, Anchor, information
from metarl.learning.one_task import is_another, the_task
from metarl.learning.policies import Policy
from metarl.numerics.params import flatten, leaf, names
from metarl.rollouts.returns import per_task_mean
from metarl.rollouts.rollout import Rollout
from metarl.sampling.episodes import rollout_of_steps
from metarl.seeding import generator
from metarl.validation import require_choice, require_not_negative

Continual = Literal["fine-tuning", "replay", "ewc"]
STEPS = ("observations", "actions", "rewards", "terminated", "truncated")


@dataclass(frozen=True)
class EarlierTasksConfig:
    """Settings of what is kept of earlier tasks in a stream of them."""

    continual: Continual = "fine-tuning"
    """When the training task changes, as with --task-source stream: fine-tuning (keep training), replay (stay near the
    policies recorded in earlier tasks) or ewc (elastic weight consolidation)."""
    replay_weight: float = 1.0
    """Weight of the divergence from the policies recorded in earlier tasks, with replay."""
    ewc_weight: float = 1.0
    """Weight of elastic weight consolidation's penalty."""

    def check_earlier_tasks(self) -> None:
        """Raise ``InputError`` for a setting out of its range."""
        require_choice(self, "continual", Continual)
        require_not_negative(self, "replay_weight", "ewc_weight")


class Adapting(Protocol):
    """What is asked of the learner."""

    policy: Policy
    params: TensorDict
    processes: Processes

    def begin(self, num_tasks: int) -> Adapted:
        """Return the meta-parameters for each task."""
        ...

    def episodes(self, rollout: Rollout) -> Episodes:
        """Return a rollout with its advantages."""
        ...

    def adaptation(
        self, params: TensorDict, support: Sequence[Episodes], differentiable: bool = True
    ) -> list[TensorDict]:
        """Return every task's parameters before and after each inner step."""
        ...


class EarlierTasks:
    """What is kept of earlier tasks; it is replaced at every update, not changed.

    Args:
        config: settings.
        seed: of the samples for the Fisher information.
        device: of the learner.

    Attributes:
        latest: the last iteration's rollouts of the present task, with advantages: one before each inner step and one
            after the last.
        recorded: the same of each earlier task, with replay.
        anchor: the penalty of elastic weight consolidation.
    """

    def __init__(self, config: EarlierTasksConfig, seed: int, device: torch.device) -> None:
        self._method, self._replay_weight = config.continual, config.replay_weight
        self._seed, self._device = seed, device
        self.anchor = Anchor(config.ewc_weight)
        self._consolidated = 0
        self.latest: list[Episodes] = []
        self.recorded: list[list[Episodes]] = []

    def met(self, learner: Adapting, rollouts: Sequence[Rollout]) -> "EarlierTasks":
        """Return what is kept when an update begins; if its task is a new one, the last task is now an earlier one.

        Args:
            learner: as the last update left it.
            rollouts: of the update, all of one task.

        Raises:
            InputError: if the rollouts are of several tasks, or there are several processes.
        """
        if self._method == "fine-tuning":
            return self
        if learner.processes.size > 1:
            raise InputError(f"continual {self._method} runs in a single process; use one device")
        task, after = the_task(rollouts, self._method), copy.copy(self)
        if is_another(task, self._task()):
            after._consolidated += 1
            if self._method == "replay":
                after.recorded = [*self.recorded, self.latest]
            else:
                after.anchor = self._consolidated_anchor(learner)
        after.latest = [learner.episodes(rollout) for rollout in rollouts]
        return after

    def penalty(self, learner: Adapting, params: TensorDict, differentiable: bool = True) -> Tensor | float:
        """Return what is subtracted from the outer objective ``[]``, as a function of un-stacked meta-parameters.

        Args:
            learner: whose adaptation is repeated on what is recorded.
            params: leaves.
            differentiable: make the inner steps differentiable, unless the learner is first-order.
        """
        if self._method == "ewc":
            return self.anchor.penalty(cast(Mapping[str, Tensor], dict(params.items())))
        total: Tensor | float = 0.0
        for *support, query in self.recorded:
            *_, adapted = learner.adaptation(params, support, differentiable)
            now = learner.policy.distribution(adapted, query.rollout.observations)
            moved = per_task_mean(query.rollout.known_distribution().kl(now), query.rollout.valid)
            total = total + self._replay_weight * moved.mean()
        return total

    def curvature(
        self, params: TensorDict, curvature_of: Callable[[Sequence[Episodes], Episodes], Callable[[Tensor], Tensor]]
    ) -> Callable[[Tensor], Tensor] | None:
        """Return the product of a vector ``[P]`` with the penalty's curvature; None if there is no penalty.

        Args:
            params: un-stacked meta-parameters.
            curvature_of: returns the product with that of the divergence of policies adapted to support episodes, at
                the query's observations.
        """
        if self._method == "ewc" and self.anchor.importance:
            known = self.anchor.importance
            weights = {name: known.get(name, torch.zeros_like(params[name])) for name in names(params)}
            diagonal = self.anchor.weight * flatten(TensorDict(weights))
            return lambda vector: diagonal * vector
        products = [curvature_of(support, query) for *support, query in self.recorded]
        if not products:
            return None
        return lambda vector: self._replay_weight * torch.stack([product(vector) for product in products]).sum(0)

    def _task(self) -> dict[str, Tensor]:
        return the_task([self.latest[0].rollout], self._method) if self.latest else {}

    def _consolidated_anchor(self, learner: Adapting) -> Anchor:
        """Return the penalty with that of the task that has been learned last.

        The Fisher information is that of the adapted policies' actions about the meta-parameters, through the
        adaptation.
        """
        anchor = Anchor(self.anchor.weight)
        anchor.load_state_dict(self.anchor.state_dict(), self._device)
        stream = generator(self._seed, "information", self._consolidated)
        params = leaf(learner.params)
        *_, adapted = learner.adaptation(params, self.latest[:-1])
        query = self.latest[-1].rollout
        distribution = learner.policy.distribution(adapted, query.observations)
        drawn = distribution.map(Tensor.detach).map(Tensor.cpu).sample(stream).to(self._device)
        log_probs = distribution.log_prob(drawn)[query.valid]
        chosen = torch.randperm(len(log_probs), generator=stream)[:SAMPLES]
        values = cast(Mapping[str, Tensor], dict(params.items()))
        anchor.add(values, information(lambda number: log_probs[chosen[number]], len(chosen), values))
        return anchor

    def state_dict(self) -> dict[str, Any]:
        """Return everything that is kept; nothing with fine-tuning."""
        if self._method == "fine-tuning":
            return {}
        recorded = [[_tensors(each) for each in episodes] for episodes in self.recorded]
        latest = [_tensors(each) for each in self.latest]
        accounts = {"consolidated": self._consolidated, **self.anchor.state_dict()}
        return {"earlier_tasks": {"latest": latest, "recorded": recorded, **accounts}}

    def restored(self, learner: Adapting, state: Mapping[str, Any]) -> "EarlierTasks":
        """Return what is kept according to a ``state_dict`` with the same settings."""
        if self._method == "fine-tuning":
            return self
        kept, restored = state["earlier_tasks"], copy.copy(self)
        restored.latest = [_episodes(learner, each, self._device) for each in kept["latest"]]
        restored.recorded = [[_episodes(learner, each, self._device) for each in rounds] for rounds in kept["recorded"]]
        restored.anchor = Anchor(self.anchor.weight)
        restored.anchor.load_state_dict(kept, self._device)
        restored._consolidated = int(kept["consolidated"])
        return restored


def _tensors(episodes: Episodes) -> dict[str, Any]:
    """Return everything that ``_episodes`` needs to make the same episodes."""
    rollout = episodes.rollout
    parts = {f"distribution_{number}": part for number, part in enumerate(rollout.known_distribution().tensors())}
    steps = {name: getattr(rollout, name).cpu() for name in STEPS} | {name: part.cpu() for name, part in parts.items()}
    tasks = {str(name): value.cpu() for name, value in rollout.tasks.items()}
    others = {"final_observations": rollout.final_observations.cpu(), "advantages": episodes.advantages.cpu()}
    return {"tasks": tasks, "steps": steps, **others}


def _episodes(learner: Adapting, kept: Mapping[str, Any], device: torch.device) -> Episodes:
    """Return episodes made from the tensors that ``_tensors`` returned."""
    steps = {name: value.to(device) for name, value in kept["steps"].items()}
    count = len(steps["rewards"])
    tasks = TensorDict({name: value.to(device) for name, value in kept["tasks"].items()}, [count])
    kind = type(learner.policy.distribution(learner.begin(count).params, steps["observations"]))
    final, advantages = kept["final_observations"].to(device), kept["advantages"].to(device)
    return Episodes(rollout_of_steps(tasks, steps, kind, final), advantages)
