"""What a learner that cannot adapt earns on a task family, and what one that is told the task earns."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from numpy.typing import ArrayLike

from metarl.errors import InputError
from metarl.statistics import Scores, normalize


@dataclass(frozen=True)
class Reference:
    """Mean undiscounted returns of one episode of a family's preset, over its tasks.

    An episode of a bandit is one pull: what is published as the total of n pulls stands here divided by n. So does the
    tabular MDP's total of n episodes.

    Attributes:
        horizon: of the episode; another one has other returns.
        no_adaptation: the most that a policy earns that treats all tasks alike.
        full_knowledge: what a policy earns that is told the task; None where no value is known.
        source: where the two come from.
    """

    horizon: int
    no_adaptation: float
    full_knowledge: float | None
    source: str

    @property
    def lines(self) -> dict[str, float]:
        """What is known, by what it is."""
        known = {"no adaptation": self.no_adaptation, "full knowledge": self.full_knowledge}
        return {label: value for label, value in known.items() if value is not None}

    def normalize(self, returns: ArrayLike) -> Scores:
        """Put returns on the scale on which no adaptation is 0 and full knowledge 1; see ``statistics.normalize``.

        Raises:
            InputError: when the value of full knowledge is not known.
        """
        if self.full_knowledge is None:
            raise InputError("returns are normalised by what full knowledge earns, which is not known for this preset")
        return normalize(returns, self.no_adaptation, self.full_knowledge)


def find_reference(family: str, preset: str, horizon: int) -> Reference | None:
    """Return what is known of a family's preset, if anything is, and if episodes have the preset's own horizon."""
    found = REFERENCES.get((family, preset))
    return found if found is not None and found.horizon == horizon else None


_ANY_ARM = "any arm, 1 / 2; the best of k, k / (k + 1). Totals of 1000 tasks in Duan et al. (2016), table 1, by pull"
_GOAL = "best goal-blind policy; shortest way to a known goal"
_SPEED = "constant speed in the middle of the range, without control costs"

REFERENCES: Mapping[tuple[str, str], Reference] = MappingProxyType(
    {
        ("bandit", "k5"): Reference(1, 1 / 2, 5 / 6, _ANY_ARM),
        ("bandit", "k10"): Reference(1, 1 / 2, 10 / 11, _ANY_ARM),
        ("tabular-mdp", "rl2"): Reference(
            10, 10.0, 21.8, "any actions, 10 rewards of mean 1; best policy, Duan et al. (2016), table 2, by episode"
        ),
        ("gridnavi", "varibad"): Reference(15, -0.77, 11.07, _GOAL),
        ("gridnavi", "varibad-shared"): Reference(15, -0.77, 11.07, _GOAL),
        ("navigation-2d", "maml"): Reference(
            100, -38.4, -0.51, "staying at the origin, as published (-38.26 by formula); straight to a known goal"
        ),
        # About -20 to -40 are reached: the upper end, so that no score is flattered.
        ("half-cheetah-vel", "0-3-h200"): Reference(200, -150.0, -20.0, f"{_SPEED}; upper end of about -20 to -40"),
        ("half-cheetah-vel", "0-2-h200"): Reference(200, -100.0, None, _SPEED),
        ("half-cheetah-vel", "0-2-h100"): Reference(100, -50.0, None, _SPEED),
        ("half-cheetah-dir", "h100"): Reference(100, 0.0, None, "what one direction earns the other one costs"),
    }
)
