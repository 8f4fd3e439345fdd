"""Environments made from a family: batched in torch and in NumPy, single, joined into trials, in words."""
