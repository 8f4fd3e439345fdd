"""Memories: networks that read a trial, all at once or step by step, to the same numbers."""
