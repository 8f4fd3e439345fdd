"""Few-shot regression and classification: the supervised form of meta-learning, each method on about one screen."""
