"""Baselines: random and optimal actions, rules for bandits, and the algorithms of Stable-Baselines3."""
