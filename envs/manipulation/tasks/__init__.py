"""Meta-World's environments, one file for each kind of task: what the observation contains, and the reward."""
