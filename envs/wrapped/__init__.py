"""External environments as task families: Gymnasium's registry, Meta-World."""
