"""Settings common to all Stable-Baselines3 algorithms."""

from dataclasses import dataclass
from typing import Literal

from metarl.validation import (
    require_choice,
    require_counts,
    require_layers,
    require_not_negative,
    require_positive,
    require_unit,
)

Variant = Literal["scratch", "pretrained", "oracle"]
Continual = Literal["none", "fine-tuning", "replay", "ewc"]


@dataclass(frozen=True)
class Sb3Config:
    """Settings common to all Stable-Baselines3 algorithms."""

    variant: Variant = "pretrained"
    """scratch: a new model for each task; pretrained: one model for all training tasks, which is fine-tuned on each new
    task; oracle: one model for all training tasks, which observes the task's parameters and does not adapt."""
    worlds: int = 4
    """Parallel environments per task in SB3; at most as many as episodes in the rollout."""
    hidden_sizes: tuple[int, ...] = (64, 64)
    """Units of the hidden layers of every network."""
    learning_rate: float = 3e-4
    """Step size of the optimisers."""
    discount: float = 0.99
    """Discount of rewards, per step."""
    continual: Continual = "none"
    """When the training task changes, as with --task-source stream: none (keep training), fine-tuning (explore anew,
    without earlier transitions), replay (explore anew, and keep them) or ewc (fine-tuning, with elastic weight
    consolidation)."""
    ewc_weight: float = 1.0
    """Weight of elastic weight consolidation's penalty."""

    def __post_init__(self) -> None:
        require_counts(self, "worlds")
        require_positive(self, "learning_rate")
        require_unit(self, "discount")
        require_layers(self, "hidden_sizes")
        require_choice(self, "variant", Variant)
        require_choice(self, "continual", Continual)
        require_not_negative(self, "ewc_weight")
