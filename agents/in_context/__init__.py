"""Learners that adapt within a trial, by what they remember or infer: RL², Hyper-RL², VariBAD, PEARL."""
