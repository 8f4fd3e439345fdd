"""The learner interface and what learners are made of."""
