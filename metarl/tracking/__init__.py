"""Experiment tracking: W&B, TensorBoard, or nothing."""
