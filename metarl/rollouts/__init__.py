"""Recorded experience as tensors: episodes, trials, and the returns computed from them."""
