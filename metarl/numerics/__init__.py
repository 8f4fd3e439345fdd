"""Mathematics on tensors and arrays: parameters, distributions, noise, statistics."""
