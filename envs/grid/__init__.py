"""One configurable gridworld, and the families on it."""
