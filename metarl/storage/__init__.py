"""Files that are complete or absent, locks, the format of checkpoints, and trained policies by name."""
