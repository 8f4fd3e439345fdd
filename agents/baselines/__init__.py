"""Baselines: random and optimal actions, and the algorithms of Stable-Baselines3."""
