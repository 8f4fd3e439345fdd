"""Learning results: comparisons and their settings, runs, records, figures and tables."""
