"""Networks as functions of parameters, encoders of observations, optimizers."""
