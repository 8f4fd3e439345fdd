"""Runs side by side: what ``metarl compare`` measures, draws and writes."""
