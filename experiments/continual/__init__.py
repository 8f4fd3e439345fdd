"""Continual learning: tasks met one after the other, and what is kept of the earlier ones."""
