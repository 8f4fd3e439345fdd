"""Algorithms of Stable-Baselines3 behind the learner protocol."""
