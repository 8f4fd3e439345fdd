"""In-context learners, which adapt through a memory or a belief within a trial.

RL², Hyper-RL², VariBAD, PEARL, recurrent SAC, AMAGO, metric learners, FOCAL, DPT and algorithm distillation.
"""
