"""Published experiments: the settings of each, by name."""
