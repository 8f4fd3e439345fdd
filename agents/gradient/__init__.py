"""Learners that adapt by gradient steps: the MAML family and Reptile."""
