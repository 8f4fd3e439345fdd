"""Meta-reinforcement learning: policies that adapt to a new task within a few episodes."""
