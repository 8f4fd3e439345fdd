"""A run on disk: its settings, directory, metrics, checkpoints, and recorded data."""
