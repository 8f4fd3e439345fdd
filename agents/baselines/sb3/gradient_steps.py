"""Gradient steps of Stable-Baselines3's off-policy algorithms that do not depend on the number of worlds.

Each vectorised step takes ``num_envs`` environment steps, which need not be a multiple of the steps per gradient step;
nor need the number of gradient steps be a multiple of the target network's update interval.
"""

from stable_baselines3 import DQN
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.utils import polyak_update


class GradientSteps(BaseCallback):
    """Sets how many gradient steps follow each step of the worlds.

    After n environment steps in a task there have been n // ``steps_per_gradient`` of them, except for those skipped
    before ``learning_starts``.

    Args:
        steps_per_gradient: environment steps per gradient step.
    """

    def __init__(self, steps_per_gradient: int) -> None:
        super().__init__()
        self._steps_per_gradient = steps_per_gradient

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        assert isinstance(self.model, OffPolicyAlgorithm)
        taken = self.model.num_timesteps
        before = taken - self.model.n_envs
        self.model.gradient_steps = taken // self._steps_per_gradient - before // self._steps_per_gradient


class ExactDQN(DQN):
    """DQN whose ``target_update_interval`` counts gradient steps, where SB3 counts environment steps of all worlds."""

    def _on_step(self) -> None:
        self.exploration_rate = self.exploration_schedule(self._current_progress_remaining)

    def train(self, gradient_steps: int, batch_size: int = 100) -> None:
        """Take gradient steps, and update the target network every ``target_update_interval`` of them."""
        left = gradient_steps
        while left > 0:
            until_update = self.target_update_interval - self._n_updates % self.target_update_interval
            taken = min(left, until_update)
            super().train(taken, batch_size)
            left -= taken
            if taken == until_update:
                polyak_update(self.q_net.parameters(), self.q_net_target.parameters(), self.tau)
