"""Checks of users' own families and learners: each reports in one line what is wrong, and what to do."""
