"""The command line, comparisons of runs, learning results, and published experiments."""
