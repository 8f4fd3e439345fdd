"""Meta-World's environments as batched worlds: the package's models and resets, many simulations of each at once.

The package ``metaworld`` is an extra, imported when the first world is made.
"""
