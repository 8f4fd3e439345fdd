"""The contract of a task family: tasks, spaces, splits, and what a family says and shows of itself."""
