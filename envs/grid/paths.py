"""The best paths through gridworlds whose only reward is on the goal."""

from dataclasses import dataclass

import torch
from tensordict import TensorDict
from torch import Tensor

from metarl.envs.grid.engine import GOAL_REWARD, MOVES, STEP_REWARD, GridFamily, neighbours
from metarl.families.solved import SolvedFamily, planned_actions
from metarl.families.tensor_family import State

# Weight of rewards after the end of an episode: less than any difference between returns, in 1000 steps.
AFTERWARDS = 1e-3


@dataclass(frozen=True)
class GoalGrid(GridFamily, SolvedFamily):
    """A gridworld in which a step gives +1 if it ends on the goal, else -0.1, and episodes never terminate."""

    def goal_path(self, state: State) -> list[Tensor]:
        """Return the goals' cells ``[B]`` after each step of an episode from ``state`` on; by default they stay."""
        return [state["goal"]] * self.horizon

    def plan(self, state: State, tasks: TensorDict) -> Tensor:
        """Return the best move from each cell by backward induction, uint8 ``[B, T, cells]``.

        Row t is for t + 1 remaining steps. Moves of equal value are compared by what would follow if the episode were
        longer, so they lead to the goal even where there is no time left; if still equal, the first one is taken.
        """
        here = torch.arange(self.hand, device=state["cell"].device)
        ahead = neighbours(self.size, here.device).view(-1, len(MOVES))
        blocked = self.walls(state)[:, ahead].bool()
        reached = torch.where(blocked, here[:, None], ahead).flatten(1)
        worth = torch.zeros(len(tasks), self.hand, device=here.device)
        moves, path = [], self.goal_path(state)
        longer = [(path[-1], AFTERWARDS)] * self.horizon
        for goal, weight in [*longer, *((goal, 1.0) for goal in reversed(path))]:
            worth = worth + weight * torch.where(here == goal[:, None], GOAL_REWARD, STEP_REWARD)
            worth, best = worth.gather(1, reached).view(len(tasks), -1, len(MOVES)).max(-1)
            moves.append(best.byte())
        return torch.stack(moves[self.horizon :], 1)

    def best_actions(self, state: State, plan: Tensor, remaining: Tensor) -> Tensor:
        """Return the planned moves ``[B]``."""
        return planned_actions(plan, remaining, state["cell"])
