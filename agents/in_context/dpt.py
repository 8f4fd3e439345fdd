"""DPT, the decision-pretrained transformer (Lee et al. 2023): it predicts the best action from transitions of a task.

The labels are the best actions given the task, which are known in solved families (``metarl.families.solved``). What
the policy reads is evidence about the task, in any order. A policy that predicts the best action of an unknown task as
well as possible is posterior sampling (their section 5): it takes an action as often as that action is the best one,
given the evidence.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from metarl.agents.in_context.imitation import ImitationConfig, ImitationLearner, MemoryPolicy
from metarl.agents.in_context.memories.memory import TransitionReader
from metarl.agents.in_context.selected_trials import lengths_read
from metarl.agents.in_context.step_inputs import ActionDistribution, ActionHead
from metarl.errors import InputError
from metarl.families.family import TaskFamily
from metarl.families.views import labelled
from metarl.learning.learner import register_learner
from metarl.rollouts.rollout import Rollout
from metarl.rollouts.trials import LabelledTrials, Trials


@dataclass(frozen=True)
class DptConfig(ImitationConfig):
    """Settings of the decision-pretrained transformer."""

    shuffle: bool = True
    """Present the transitions of a training trial in random order."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.previous_step == "no":
            raise InputError("dpt reads whole transitions: previous_step must be auto or yes, not no")


@dataclass(frozen=True)
class ArrangedTrials(LabelledTrials):
    """Labelled trials, and the order ``[B, L]`` in which their steps are presented; padding comes last."""

    order: Tensor


@register_learner
class Dpt(ImitationLearner):
    """A policy trained by supervised learning to predict the best action from an unordered context of transitions."""

    name: ClassVar[str] = "dpt"
    config_class: ClassVar[type] = DptConfig
    config: DptConfig

    @classmethod
    def view(cls, family: TaskFamily, config: Any) -> TaskFamily:
        """Return the family with the best action of each step in its info.

        Raises:
            InputError: for a family whose best actions are not known.
        """
        return labelled(family, "dpt predicts the best actions")

    def make_network(self, family: TaskFamily) -> MemoryPolicy:
        """Return a memory of whole transitions with a policy on it."""
        memory = TransitionReader.make(self.config, self.inputs.size, self.config.hidden_size)
        return MemoryPolicy(memory, ActionHead(family.action_space))

    def examples(self, rollouts: Sequence[Rollout]) -> LabelledTrials:
        """Return the trials with the best actions.

        Raises:
            InputError: if the best actions were not recorded.
        """
        if any(rollout.best_actions is None for rollout in rollouts):
            raise InputError(
                "dpt needs the best action of each step, which these episodes do not contain; record them with metarl "
                "collect --best-actions"
            )
        return LabelledTrials.of(rollouts)

    def arranged(self, trials: Trials, keys: Tensor) -> ArrangedTrials:
        """Return the trials with their steps in random order, if ``shuffle``."""
        order = torch.arange(keys.shape[1], device=keys.device).expand_as(keys)
        if self.config.shuffle:
            order = keys.masked_fill(~trials.valid, 1.0).argsort(dim=-1, stable=True)
        return ArrangedTrials(**vars(trials), order=order)

    def predicted(self, trials: Trials) -> tuple[ActionDistribution, Tensor]:
        """Return the policy after each step's transition, at the observation that followed, and the best actions.

        Every step is a query: the context is its transition and those that are presented before it.
        """
        assert isinstance(trials, ArrangedTrials)
        reader: Any = self.network.memory
        rows = torch.arange(len(trials.order), device=trials.order.device).unsqueeze(1)
        transitions = reader.transitions(self.trial_inputs(trials), reader.initial(len(rows)))[rows, trials.order]
        outputs, _ = reader.memory(transitions, reader.memory.initial(len(rows)), lengths_read(trials))
        return self.network.of_outputs(outputs), trials.best_actions[rows, trials.order]
