"""Algorithm distillation (Laskin et al. 2022): imitate a learner while it learns, and the policy learns as it does.

A trial is a part of a learning history: episodes of one task by a reinforcement learning algorithm that improves from
one to the next. A policy that predicts the algorithm's actions from the steps before them must infer from the rewards
how far it has come, and act a little better. In a new task it improves in its context, while its weights stay fixed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from metarl.agents.in_context.imitation import ImitationConfig, ImitationLearner
from metarl.agents.in_context.selected_trials import lengths_read
from metarl.agents.in_context.step_inputs import ActionDistribution
from metarl.families.family import TaskFamily
from metarl.learning.learner import register_learner
from metarl.rollouts.rollout import Rollout
from metarl.rollouts.trials import Trials
from metarl.validation import require_counts


@dataclass(frozen=True)
class AlgorithmDistillationConfig(ImitationConfig):
    """Settings of algorithm distillation."""

    stride: int = 1
    """Rounds of the learning history from one episode of a training trial to the next."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_counts(self, "stride")


@register_learner
class AlgorithmDistillation(ImitationLearner):
    """A policy that predicts a learner's actions over its learning history, trained by behaviour cloning."""

    name: ClassVar[str] = "algorithm-distillation"
    config_class: ClassVar[type] = AlgorithmDistillationConfig
    needs_recorded: ClassVar[bool] = True

    def __init__(
        self, family: TaskFamily, config: AlgorithmDistillationConfig, seed: int, device: torch.device
    ) -> None:
        super().__init__(family, config, seed, device)
        self.stride = config.stride

    def examples(self, rollouts: Sequence[Rollout]) -> Trials:
        """Return the trials, whose actions are to be imitated."""
        return Trials.of(rollouts)

    def predicted(self, trials: Trials) -> tuple[ActionDistribution, Tensor]:
        """Return the policy at each step, and the actions that the learner took."""
        start = self.network.initial(len(trials.rewards))
        return self.network.policy_and_memory(self.trial_inputs(trials), start, lengths_read(trials))[0], trials.actions
