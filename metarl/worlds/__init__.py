"""Environments made from a family: batched in torch and in NumPy, single, joined to trials, in words."""
