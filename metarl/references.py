"""The returns that a family's learners are compared with: without adaptation, and with the task known."""

from dataclasses import dataclass

from numpy.typing import ArrayLike

from metarl.errors import InputError
from metarl.statistics import Scores, normalize


@dataclass(frozen=True)
class Reference:
    """Mean undiscounted returns of one episode of a family's preset, over its tasks.

    An episode of a bandit is one pull: a published total of n pulls is divided by n here. So is the tabular MDP's total
    of n episodes.

    Attributes:
        horizon: of the episode; another one has other returns.
        no_adaptation: the highest return of a policy that treats all tasks alike.
        full_knowledge: the return of a policy that knows the task; None where no value is known.
        source: where the two come from.
    """

    horizon: int
    no_adaptation: float
    full_knowledge: float | None
    source: str

    @property
    def lines(self) -> dict[str, float]:
        """The values that are known, by their names."""
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
