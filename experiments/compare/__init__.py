"""Comparison of runs: what ``metarl compare`` measures, plots and writes."""
