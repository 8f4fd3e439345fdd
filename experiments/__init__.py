"""The command line, reports, and published experiments."""
