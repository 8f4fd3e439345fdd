"""Adaptation as a service: ``metarl serve`` lets a trained learner adapt to whoever calls it over HTTP."""
