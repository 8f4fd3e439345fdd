"""Adaptation as a service: ``metarl serve`` makes a trained learner act and adapt over HTTP."""
