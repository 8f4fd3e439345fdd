"""MuJoCo robots with a task."""
