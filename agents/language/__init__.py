"""A language model as a learner: it reads the transcript of a trial, and its memory is that text."""
