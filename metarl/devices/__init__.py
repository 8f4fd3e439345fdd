"""Devices and processes: transfers, captured graphs, compiled loops, and which process computes what."""
