"""Families of a few tensors: bandits, tabular MDPs, a point in the plane."""
