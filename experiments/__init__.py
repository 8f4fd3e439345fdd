"""The command line, comparisons of runs, learning results, published experiments, continual and few-shot learning."""
