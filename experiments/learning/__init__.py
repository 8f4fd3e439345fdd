"""Learning results: what is trained with which settings, the runs, their records, figures and tables."""
