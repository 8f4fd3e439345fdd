"""Checks of a family or learner of one's own: each says in one line what is wrong with it, and what to do."""
