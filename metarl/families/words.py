"""What a family says about itself in words, for learners that read."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Words:
    """A family in words.

    Attributes:
        rules: what holds in all of its tasks, without what is hidden in a task; may have several lines.
        actions: the name of each action of its Discrete space, in order.
        observation: returns an observation ``[*observation]`` on the CPU in words; empty if nothing is observed.
    """

    rules: str
    actions: tuple[str, ...]
    observation: Callable[[Tensor], str]
