"""Batched MuJoCo simulations with torch tensors, on the CPU and on CUDA, and rendering."""
