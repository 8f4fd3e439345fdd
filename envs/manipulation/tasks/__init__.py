"""Meta-World's environments, a file for each kind of task: where the observation looks, and the reward."""
