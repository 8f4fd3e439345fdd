"""Many MuJoCo simulations behind torch tensors, on the CPU and on CUDA, and their pictures."""
