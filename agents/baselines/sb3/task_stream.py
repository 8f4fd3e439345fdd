"""What a model of Stable-Baselines3 carries over when its training task changes.

A stream of tasks is met one task after another. At each change the model explores anew, as on its first task. It
keeps its transitions (replay) or not (fine-tuning); with elastic weight consolidation, the network that acts is held
near the parameters that mattered to earlier tasks.
"""

from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from metarl.agents.baselines.sb3.config import Continual
from metarl.agents.baselines.sb3.models import for_new_task, knowledge
from metarl.learning.anchor import SAMPLES, Anchor, information, trained_parameters
from metarl.learning.one_task import is_another, the_task
from metarl.numerics.distributions import Distribution
from metarl.rollouts.rollout import Rollout
from metarl.seeding import generator

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm

Likelihood = Callable[["BaseAlgorithm", Tensor], Distribution]


class TaskStream:
    """The tasks that a shared model meets, one after another.

    Args:
        method: what the model carries over.
        weight: of the penalty of elastic weight consolidation.
        device: of the model.
    """

    def __init__(self, method: Continual, weight: float, device: torch.device) -> None:
        self._method, self._device = method, device
        self.anchor = Anchor(weight)
        self._task: dict[str, Tensor] = {}
        self._seen: dict[str, Tensor] = {}

    def known(
        self, model: "BaseAlgorithm", rollouts: Sequence[Rollout], likelihood: Likelihood, seed: int
    ) -> dict[str, Any]:
        """Return the state with which the model goes on to learn the rollouts' task.

        Args:
            model: as the last update left it.
            rollouts: of one task.
            likelihood: returns the distribution that a model's outputs at observations ``[B, *observation]`` describe.
            seed: of the samples for the Fisher information.

        Raises:
            InputError: if the rollouts are of several tasks.
        """
        task = the_task(rollouts, self._method)
        changed = is_another(task, self._task)
        stream = generator(seed, "information")
        if changed and self._method == "ewc":
            self._consolidate(model, likelihood, stream)
        self._task = task
        if self._method == "ewc":
            self._seen = {"observations": _sampled_observations(rollouts, stream)}
        known = knowledge(model)
        if changed:
            fresh = for_new_task(model)
            known = {**known, **fresh} if self._method == "replay" else fresh
        return known

    def _consolidate(self, model: "BaseAlgorithm", likelihood: Likelihood, stream: torch.Generator) -> None:
        """Add the penalty of the task that has been learned last."""
        observations, parameters = self._seen["observations"].to(self._device), trained_parameters(model.policy)

        def log_prob(number: int) -> Tensor:
            distribution = likelihood(model, observations[number : number + 1])
            drawn = distribution.map(Tensor.detach).map(Tensor.cpu).sample(stream).to(self._device)
            return distribution.log_prob(drawn).sum()

        self.anchor.add(parameters, information(log_prob, len(observations), parameters))

    def hold(self, model: "BaseAlgorithm") -> None:
        """Make the optimisers of a model add the penalty's gradient."""
        for name in model.get_parameters():
            if name.endswith("optimizer"):
                self.anchor.hold(trained_parameters(model.policy), attrgetter(name)(model))

    def state_dict(self) -> dict[str, Any]:
        """Return the latest task, some of its observations, and the penalty's sums."""
        return {"task": self._task, "seen": self._seen, **self.anchor.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""
        self._task, self._seen = dict(state["task"]), dict(state["seen"])
        self.anchor.load_state_dict(state, self._device)


def _sampled_observations(rollouts: Sequence[Rollout], stream: torch.Generator) -> Tensor:
    """Return up to ``SAMPLES`` of the rollouts' observations ``[B, *observation]``, drawn without replacement."""
    met = torch.cat([rollout.observations[rollout.valid] for rollout in rollouts]).cpu()
    return met[torch.randperm(len(met), generator=stream)[:SAMPLES]]
