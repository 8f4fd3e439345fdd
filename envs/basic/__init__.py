"""Families implemented in a few tensor operations: bandits, tabular MDPs, point robots."""
