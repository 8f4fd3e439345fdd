"""Environments of others behind the contract of a task family: Gymnasium's registry, Meta-World."""
