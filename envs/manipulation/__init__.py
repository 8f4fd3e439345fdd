"""Meta-World's environments as batched worlds, built on the package's models and resets.

The package ``metaworld`` is an optional extra, imported when the first world is made.
"""
